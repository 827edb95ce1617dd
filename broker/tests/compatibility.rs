//! The compatibility page, and the proof that it tells the truth: each row of the tables of request codes is
//! held against a running broker and a running name server, the tests that it names are looked for, and
//! `docs/compatibility.md` is what the tables make of it (`RMQ_BLESS=1` writes it).

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rocketmq_namesrv::{NameServer, NamesrvConfig};
use rocketmq_remoting::request_code::{Answerer, Row, TABLE};
use rocketmq_remoting::tls::TlsEnvironment;
use rocketmq_remoting::{Client, Command, RequestCode, ResponseCode, Support};
use support::{PATIENCE, Running};
use tokio_util::sync::CancellationToken;

type Table = [(RequestCode, Support)];

/// Codes that RocketMQ does not know, at the ends of what a header can say.
const UNKNOWN: [i32; 5] = [0, -1, 9999, i32::MAX, i32::MIN];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The table that the row belongs to; none for codes that no server answers.
fn table_of(row: &Row) -> Option<&'static Table> {
    match row.answerer {
        Answerer::Broker | Answerer::Client => Some(rocketmq_broker::SUPPORT),
        Answerer::NameServer | Answerer::Controller => Some(rocketmq_namesrv::SUPPORT),
        Answerer::Nobody => None,
    }
}

fn support_of(table: &Table, code: RequestCode) -> Option<Support> {
    table.iter().find(|(known, _)| *known == code).map(|(_, support)| *support)
}

#[test]
fn every_code_has_one_row_in_the_table_of_its_server() {
    for (server, table) in [("broker", rocketmq_broker::SUPPORT), ("name server", rocketmq_namesrv::SUPPORT)] {
        assert!(table.is_sorted_by(|(one, _), (other, _)| one.0 < other.0), "{server}: by number, each once");
    }
    for row in TABLE {
        let tables = [rocketmq_broker::SUPPORT, rocketmq_namesrv::SUPPORT];
        let rows = tables.iter().filter(|table| support_of(table, row.code).is_some()).count();
        match table_of(row) {
            None => assert_eq!(rows, 0, "{} is answered by nobody", row.code),
            Some(table) => {
                assert!(support_of(table, row.code).is_some(), "{} has no row in its server's table", row.code);
                assert_eq!(rows, 1, "{} has a row in another server's table", row.code);
            }
        }
    }
    let rows = TABLE.iter().filter(|row| row.answerer != Answerer::Nobody).count();
    assert_eq!(rows, rocketmq_broker::SUPPORT.len() + rocketmq_namesrv::SUPPORT.len(), "a row for an unknown code");
}

/// Asks a server for everything, with nothing in the header, over one connection that stays.
async fn ask_for_everything(server: &str, address: &str, table: &Table, answerers: &[Answerer]) {
    let client = Client::default();
    let connection = client.peer(address).await.unwrap();
    let answers_itself = |code| TABLE.iter().any(|row| row.code == code && answerers.contains(&row.answerer));
    let codes = TABLE.iter().map(|row| row.code).chain(UNKNOWN.map(RequestCode));
    for code in codes {
        let answer = client.invoke(address, Command::request(code), PATIENCE).await;
        let answer = answer.unwrap_or_else(|error| panic!("{server}, {code}: {error}"));
        let plain = format!(" request type {} not supported", code.0);
        let refused = answer.response_code() == ResponseCode::REQUEST_CODE_NOT_SUPPORTED;
        match support_of(table, code) {
            Some(Support::Refused { feature }) => {
                assert!(refused, "{server}, {code}: {:?}", answer.response_code());
                let remark = answer.remark();
                let told = [&*plain, code.name().unwrap(), feature, server];
                assert!(told.iter().all(|text| remark.contains(text)), "{server}, {code}: {remark}");
            }
            Some(Support::Full { .. } | Support::Partial { .. }) if answers_itself(code) => {
                assert!(!refused, "{server}, {code}: {}", answer.remark());
            }
            _ => assert_eq!((refused, answer.remark()), (true, &*plain), "{server}, {code}"),
        }
    }
    let still = client.peer(address).await.unwrap();
    assert!(!connection.is_closed() && still.id() == connection.id(), "{server}: the connection was closed");
}

#[tokio::test]
async fn servers_do_what_the_tables_say() {
    let broker = Running::start(&[]).await;
    ask_for_everything("broker", &broker.address, rocketmq_broker::SUPPORT, &[Answerer::Broker]).await;
    one_way_requests_are_passed_over(&broker.address).await;
    broker.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let mut config = NamesrvConfig { listen_port: 0, bind_address: Ipv4Addr::LOCALHOST.into(), ..Default::default() };
    config.kv_config_path = dir.path().join("kvConfig.json").display().to_string();
    config.config_store_path = dir.path().join("namesrv.properties").display().to_string();
    let server = NameServer::bind(config, &TlsEnvironment::default()).unwrap();
    let (address, shutdown) = (server.local_addr().to_string(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    ask_for_everything("name server", &address, rocketmq_namesrv::SUPPORT, &[Answerer::NameServer]).await;
    one_way_requests_are_passed_over(&address).await;
    shutdown.cancel();
    serving.await.unwrap();
}

/// One-way requests of known, refused and unknown codes, and then a question: the first answer is the
/// question's.
async fn one_way_requests_are_passed_over(address: &str) {
    let address = address.to_owned();
    let exchange = tokio::task::spawn_blocking(move || {
        let frame = |code: i32, opaque: i32, flag: i32| {
            let header =
                format!(r#"{{"code":{code},"flag":{flag},"language":"JAVA","opaque":{opaque},"version":407}}"#);
            let mut frame = (header.len() as u32 + 4).to_be_bytes().to_vec();
            frame.extend((header.len() as u32).to_be_bytes());
            frame.extend(header.into_bytes());
            frame
        };
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for (opaque, code) in [10, 34, 105, 1001, 200_050, 9999].into_iter().enumerate() {
            stream.write_all(&frame(code, opaque as i32, 2)).unwrap();
        }
        stream.write_all(&frame(9999, 77, 0)).unwrap();
        let mut lengths = [0; 8];
        stream.read_exact(&mut lengths).unwrap();
        let mut header = vec![0; u32::from_be_bytes(lengths[4..].try_into().unwrap()) as usize];
        stream.read_exact(&mut header).unwrap();
        String::from_utf8(header).unwrap()
    });
    let header = exchange.await.unwrap();
    assert!(header.contains("\"opaque\":77"), "{header}");
}

#[test]
fn the_tests_that_the_tables_name_are_there() {
    let supported = rocketmq_broker::SUPPORT.iter().chain(rocketmq_namesrv::SUPPORT).filter_map(|(code, support)| {
        let (Support::Full { proof } | Support::Partial { proof, .. }) = support else { return None };
        Some((code.to_string(), *proof))
    });
    for (code, proof) in supported.chain(BESIDE.iter().map(|(what, _, proof)| ((*what).to_owned(), *proof))) {
        let (file, test) = proof.split_once("::").unwrap_or_else(|| panic!("{code}: {proof:?} is not file::test"));
        let text =
            std::fs::read_to_string(sources().join(file)).unwrap_or_else(|error| panic!("{code}: {file}: {error}"));
        assert!(text.contains(&format!("fn {test}(")), "{code}: {file} has no test {test}");
    }
}

#[test]
fn the_page_is_what_the_tables_make_of_it() {
    let (path, page) = (sources().join("docs/compatibility.md"), page());
    if std::env::var_os("RMQ_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differ = written.lines().zip(page.lines()).find(|(old, new)| old != new);
    assert!(written == page, "docs/compatibility.md is not what the tables say: run make compatibility; {differ:?}");
}

const HEAD: &str = "\
# Compatibility

Every request code that RocketMQ 4.9.7 or 5.5.0 declares: who sends it, since which version, and what our servers do with it.
Made by `make compatibility` from `remoting/src/request_code.rs`, `broker/src/request_support.rs`,
`namesrv/src/request_support.rs` and, for what stands beside the codes, `broker/tests/compatibility.rs`. A test asks a running broker and a running name server for every code of this page, and fails
where they do otherwise, where a test that is named here does not exist, or where this page is out of date.

What is not answered is refused with response code 3 (`REQUEST_CODE_NOT_SUPPORTED`) and a remark that names the code and what it
needs; a code that is not on this page gets ` request type N not supported`. Either way the connection stays. One-way requests get
no answer, whatever their code. The fast port (`listenPort` - 2) answers what the broker's port answers.

";

/// Where 4.9 and 5.x differ, or clients go beyond what Java's do: what happens here, and the test that shows it.
const BESIDE: [(&str, &str, &str); 8] = [
    (
        "A header field that is missing",
        "is missed where Java needs it, and nowhere else: of a send, `producerGroup` (`a`) never, `defaultTopic` (`c`) and \
         `defaultTopicQueueNums` (`d`) for a topic that is not there yet. The remark names the field, where Java's is a \
         `NullPointerException`.",
        "broker/tests/refusals.rs::only_a_field_that_is_needed_is_missed",
    ),
    (
        "A JSON header that is fastjson's rather than JSON",
        "is read: numbers as strings or with a fraction, single quotes, keys without quotes, commas too many, bytes that are not UTF-8. \
         What is beyond that closes the connection, as in Java, and the log has the peer's address.",
        "remoting/src/json_header.rs::what_fastjson_takes_for_a_header_is_read",
    ),
    (
        "A group whose name Java's clients refuse",
        "is served as by brokers of 4.9, but for names that cannot be kept (blank, over 255 bytes, with `@`, `/` or control characters): \
         the heartbeat counts, pulls get code 26, as in 5.x.",
        "broker/tests/refusals.rs::a_group_of_an_odd_name_is_served_as_far_as_it_can_be_kept",
    ),
    (
        "Code 29 (`INVALID_PARAMETER`) of 5.x",
        "is said of commits without queue or offset; names that tools may not use get 1, as in 4.9.",
        "broker/tests/refusals.rs::names_of_topics_and_groups_are_checked",
    ),
    (
        "Resetting a group",
        "asks the members to, as in 4.9; with `useServerSideResetOffset=true` the broker does it, as in 5.x, whether or not the \
         group is online.",
        "broker/tests/admin_requests.rs::a_group_is_reset_by_the_broker_itself",
    ),
    (
        "Attributes of groups, and other settings of 5.x",
        "are kept and shown; nothing acts on them.",
        "broker/tests/tool_requests.rs::what_5_x_says_of_a_group_is_kept",
    ),
    (
        "Inner batches, compacted topics",
        "are not here: `queue.type=BatchCQ` and `cleanup.policy=COMPACTION` are refused with the reason. A batch is stored as single \
         messages, as in every topic of 4.9.",
        "broker/src/topic_attributes.rs::attributes_change_as_tools_of_java_ask",
    ),
    (
        "SQL92: a property's text where a number is asked for",
        "is read as Java reads it, hexadecimal doubles and digits of other scripts included.",
        "broker/src/filter/number.rs::hexadecimal_doubles_are_read_as_java_reads_them",
    ),
];

/// The sections of the page, and whose codes they show.
const SECTIONS: [(&str, &[Answerer]); 4] = [
    ("The name server is asked", &[Answerer::NameServer, Answerer::Controller]),
    ("The broker is asked", &[Answerer::Broker]),
    ("The broker asks its clients", &[Answerer::Client]),
    ("Declared by RocketMQ, answered by none of its servers", &[Answerer::Nobody]),
];

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| | yes | partly | no |\n|---|---|---|---|\n");
    for (title, answerers) in SECTIONS {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows(answerers) {
            *counts.entry(cells(row).0).or_default() += 1;
        }
        let count = |state| counts.get(state).copied().unwrap_or(0);
        writeln!(page, "| {title} | {} | {} | {} |", count("yes"), count("partly"), count("no")).unwrap();
    }
    for (title, answerers) in SECTIONS {
        writeln!(page, "\n## {title}\n").unwrap();
        page.push_str("| code | name | sent by | since | here | |\n|---|---|---|---|---|---|\n");
        for row in rows(answerers) {
            let (state, why) = cells(row);
            let Row { code, name, since, callers, .. } = row;
            writeln!(page, "| {} | `{name}` | {callers} | {since} | {state} | {why} |", code.0).unwrap();
        }
    }
    page.push_str("\n## Beside the codes\n\n| what | here | |\n|---|---|---|\n");
    for (what, here, proof) in BESIDE {
        writeln!(page, "| {what} | {here} | `{proof}` |").unwrap();
    }
    page
}

fn rows(answerers: &'static [Answerer]) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| answerers.contains(&row.answerer))
}

/// What is done with the code, and the reason or the proof.
fn cells(row: &Row) -> (&'static str, String) {
    match table_of(row).and_then(|table| support_of(table, row.code)) {
        Some(Support::Full { proof }) => ("yes", format!("`{proof}`")),
        Some(Support::Partial { but, proof }) => ("partly", format!("{but}; `{proof}`")),
        Some(Support::Refused { feature }) => ("no", format!("needs {feature}")),
        None => ("no", "as in RocketMQ".to_owned()),
    }
}
