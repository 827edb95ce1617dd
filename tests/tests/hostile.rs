//! Bytes that no client would send, to the name server and to the broker: nothing panics, nothing leaks, and a client that
//! behaves notices nothing. The seed is printed; `RMQ_SEED` repeats a run.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use rocketmq_tests::{
    client::{Client, Sent},
    cluster::{Cluster, Kind},
    history::History,
    java::Version,
    process::{Process, wait_until},
    wire::{self, Wire},
};

const LONG: Duration = Duration::from_mins(2);
/// How long each server is attacked.
const ATTACK: Duration = Duration::from_secs(20);
/// Connections of the attacker at a time that stay open with half a frame.
const HALF_OPEN: usize = 100;
/// What a server's own memory may grow by, above what it took for the ordinary load.
const GROWTH_KIB: u64 = 96 << 10;

#[test]
fn hostile_bytes_disturb_nobody() -> Result<()> {
    let seed = std::env::var("RMQ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("RMQ_SEED={seed}");
    let mut cluster = Cluster::start(Kind::Ours, &["broker-a"])?;
    let client = Client::new(Version::V4_9_7, &cluster.addr());
    let producer =
        client.produce("Undisturbed").flag("until-stdin-closes").arg("rate", 100).arg("retries", 0).start()?;
    producer.wait_for_lines(300, LONG)?;

    let name_server = cluster.namesrv.socket();
    let broker = cluster.brokers[0].socket();
    let before = [measure(cluster.namesrv.process())?, measure(cluster.brokers[0].process()?)?];
    let mut rng = StdRng::seed_from_u64(seed);
    let attacked = attack(&mut rng, name_server)? + attack(&mut rng, broker)?;

    let sent = producer.stop(LONG)?.sent;
    ensure!(sent.iter().all(Sent::is_ok), "a neighbour was disturbed: {:?}", sent.iter().find(|sent| !sent.is_ok()));
    // Garbage is closed or answered, and its connections are gone with it.
    let processes = [cluster.namesrv.process(), &*cluster.brokers[0].process()?];
    for (process, (memory, files)) in processes.into_iter().zip(before) {
        wait_until(Duration::from_secs(30), || Ok(process.open_files()? <= files + 10)).map_err(|_| {
            anyhow::anyhow!("{} had {files} open files and has {:?}", process.name(), process.open_files())
        })?;
        let (now, _) = measure(process)?;
        ensure!(now < memory + GROWTH_KIB, "{} grew from {memory} to {now} KiB of its own", process.name());
        let log = process.log();
        ensure!(!log.contains("panicked"), "{}:\n{log}", process.name());
        eprintln!("{}: {memory} KiB before, {now} KiB after {attacked} attacks in all", process.name());
    }

    let mut history = History::default();
    let expected = sent.len();
    history.sent(sent);
    let consumed = client.consume("Undisturbed", "g_undisturbed").arg("expect", expected).run(LONG)?;
    history.received(consumed.received);
    history.check()?;
    cluster.brokers[0].stop()?;
    Ok(())
}

/// Own memory in KiB (mapped files do not count) and open files.
fn measure(process: &Process) -> Result<(u64, usize)> {
    Ok((process.rss_anon_kib()?, process.open_files()?))
}

/// Attacks for a while; after every tenth attack the server has to answer a plain question in time.
fn attack(rng: &mut StdRng, addr: SocketAddr) -> Result<usize> {
    let began = Instant::now();
    let mut half_open = Vec::new();
    let mut count = 0;
    while began.elapsed() < ATTACK {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let bytes = payload(rng);
        // The server may close in the middle of it.
        let _ = stream.write_all(&bytes);
        match rng.random_range(0..4) {
            0 => {
                half_open.push(stream);
                if half_open.len() > HALF_OPEN {
                    half_open.remove(0);
                }
            }
            1 => {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read(&mut [0; 4096]);
            }
            2 => {
                let _ = stream.read(&mut [0; 4096]);
            }
            _ => {}
        }
        count += 1;
        if count % 10 == 0 {
            // 105 is unknown to a broker and 28 to a name server: any answer will do.
            let code = [105, 28][rng.random_range(0..2)];
            Wire::connect(addr, Duration::from_secs(10))?.call(code, &[("topic", "TBW102")], &[])?;
        }
    }
    Ok(count)
}

/// The sorts of payload: noise, frames that lie about their lengths, headers that are not what they say, good requests
/// with a bit turned over, many requests at once, text of other protocols.
fn payload(rng: &mut StdRng) -> Vec<u8> {
    let good = good_request(rng);
    match rng.random_range(0..10) {
        0 => noise(rng, 4096),
        // A length of up to 4 GiB that never comes.
        1 => [&rng.next_u32().to_be_bytes()[..], &noise(rng, 512)].concat(),
        2 => [&(i32::MAX as u32).to_be_bytes()[..], &[0, 0, 0, 50], b"{\"code\":10,"].concat(),
        // A header longer than its frame; serialization types that do not exist.
        3 => [&100u32.to_be_bytes()[..], &rng.next_u32().to_be_bytes(), &noise(rng, 96)].concat(),
        4 => good[..rng.random_range(0..good.len())].to_vec(),
        5 => flipped(rng, good),
        6 => (0..rng.random_range(1..200)).flat_map(|_| good_request(rng)).collect(),
        7 => json_header(rng),
        8 => binary_header(rng),
        _ => [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ][rng.random_range(0..3)]
        .to_vec(),
    }
}

fn noise(rng: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..most)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Any code with header fields of any value: numbers out of range, names of nothing, none at all.
fn good_request(rng: &mut StdRng) -> Vec<u8> {
    const CODES: [i32; 34] = [
        10, 310, 320, 11, 361, 12, 14, 15, 17, 21, 25, 26, 28, 29, 30, 31, 33, 34, 35, 36, 37, 38, 41, 42, 43, 100,
        101, 103, 104, 105, 106, 200, 202, 208,
    ];
    const VALUES: [&str; 10] = [
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "99999999999999999999",
        "TBW102",
        "true",
        "",
        "\u{0}\u{1}",
        "%RETRY%x",
    ];
    const FIELDS: [&str; 20] = [
        "topic",
        "queueId",
        "queueOffset",
        "maxMsgNums",
        "sysFlag",
        "commitOffset",
        "consumerGroup",
        "producerGroup",
        "bornTimestamp",
        "properties",
        "brokerName",
        "brokerAddr",
        "clusterName",
        "brokerId",
        "offset",
        "a",
        "b",
        "e",
        "i",
        "m",
    ];
    // Not the topics and groups of others: what deletes, resets or reconfigures is left out of the codes above or named apart.
    let code =
        if rng.random_bool(0.8) { CODES[rng.random_range(0..CODES.len())] } else { rng.random_range(10_000..100_000) };
    let ext: Vec<(&str, &str)> = FIELDS
        .iter()
        .filter_map(|field| {
            let value = VALUES.get(rng.random_range(0..2 * VALUES.len()))?;
            Some((*field, *value))
        })
        .collect();
    // A body of configuration (25) or of a register (103) is noise; no cluster is called by these values.
    let body = noise(rng, 256);
    wire::frame(code, rng.random(), &ext, &body)
}

fn flipped(rng: &mut StdRng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.random_range(1..8) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    bytes
}

/// A frame whose JSON header is deep, wide, not JSON or not an object.
fn json_header(rng: &mut StdRng) -> Vec<u8> {
    let header = match rng.random_range(0..5) {
        0 => "[".repeat(20_000),
        1 => format!("{{\"code\":10,\"extFields\":{}}}", "{\"a\":".repeat(10_000)),
        2 => format!("{{\"code\":{},\"opaque\":1e999,\"flag\":-1}}", rng.random::<u64>()),
        3 => "null".to_owned(),
        _ => format!(
            "{{\"code\":10,\"opaque\":1,\"extFields\":{{\"a\":\"{}\"}}}}",
            "x".repeat(rng.random_range(0..200_000))
        ),
    };
    let mut frame = ((header.len() + 4) as u32).to_be_bytes().to_vec();
    frame.extend((header.len() as u32).to_be_bytes());
    frame.extend(header.as_bytes());
    frame
}

/// A frame with a header of the binary serialization (type 1) full of nonsense lengths.
fn binary_header(rng: &mut StdRng) -> Vec<u8> {
    let header = noise(rng, 300);
    let mut frame = ((header.len() + 4) as u32).to_be_bytes().to_vec();
    frame.extend(((1 << 24) | header.len() as u32).to_be_bytes());
    frame.extend(header);
    frame
}
