//! Interleavings of what brokers do and what befalls them.

use rocketmq_remoting::bodies::TopicConfigTable;

use super::*;

const S: Duration = Duration::from_secs(1);

struct Bench {
    table: RouteTable,
    start: Instant,
}

/// A registration of a broker in cluster `c`, on connection `peer`, with topics of 4 queues.
fn broker(name: &str, id: i64, addr: &str, peer: u64, version: i64, topics: &[&str]) -> Registration {
    let table = topics.iter().map(|topic| ((*topic).to_owned(), TopicConfig::new(*topic, 4, PERM_READ | PERM_WRITE)));
    Registration {
        cluster: "c".into(),
        broker_name: name.into(),
        broker_id: id,
        addr: addr.into(),
        ha_addr: format!("{addr}-ha"),
        expiry: EXPIRY_DEFAULT,
        acting_master: None,
        peer,
        body: RegisterBroker {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: TopicConfigTable {
                data_version: DataVersion { counter: version, ..DataVersion::default() },
                topic_config_table: table.collect(),
            },
        },
    }
}

fn address(addr: &str) -> BrokerAddress {
    BrokerAddress { cluster: "c".into(), addr: addr.into() }
}

impl Bench {
    fn new() -> Self {
        Self { table: RouteTable::default(), start: Instant::now() }
    }

    /// Registers `seconds` after the start.
    fn register(&mut self, seconds: u32, registration: Registration) -> Registered {
        let registered = self.table.register(registration, false, self.start + S * seconds);
        self.check();
        registered
    }

    fn expire(&mut self, seconds: u32) -> usize {
        let removed = self.table.expire(self.start + S * seconds).len();
        self.check();
        removed
    }

    fn disconnected(&mut self, peer: u64) -> usize {
        let removed = self.table.disconnected(peer).len();
        self.check();
        removed
    }

    fn addrs(&self, name: &str) -> Vec<(i64, String)> {
        self.table.member_group("c", name).broker_addrs.into_iter().collect()
    }

    fn perm(&self, topic: &str, name: &str) -> Option<i32> {
        self.table.topics.get(topic)?.get(name).map(|data| data.perm)
    }

    /// What must hold after everything.
    fn check(&self) {
        let table = &self.table;
        let members: usize = table.groups.values().map(BTreeMap::len).sum();
        assert_eq!(table.places.len(), members, "one place a member");
        for (address, (name, id)) in &table.places {
            assert_eq!(&table.groups[name][id].address, address);
        }
        assert!(table.groups.values().all(|group| !group.is_empty()));
        for (topic, queues) in &table.topics {
            assert!(!queues.is_empty(), "{topic} has no queues");
            assert!(queues.keys().all(|name| table.groups.contains_key(name)), "{topic} is on a broker that is gone");
        }
    }
}

#[test]
fn a_master_and_its_slave_register() {
    let mut bench = Bench::new();
    let slave = bench.register(0, broker("a", 1, "s:1", 2, 1, &["T", "U"]));
    assert_eq!(slave.master, None, "the master is not there yet");
    assert_eq!(bench.table.route("T", false), None, "a slave brings no topics");
    let master = bench.register(1, broker("a", 0, "m:1", 1, 1, &["T", "U"]));
    assert!(master.new_broker);
    assert_eq!(master.new_topics.len(), 2);
    assert_eq!(master.master, None);
    let slave = bench.register(2, broker("a", 1, "s:1", 2, 1, &["T", "U"]));
    assert!(!slave.new_broker);
    assert_eq!(slave.master, Some(("m:1".into(), "m:1-ha".into())));
    let route = bench.table.route("T", false).unwrap();
    assert_eq!(route.broker_datas[0].broker_addrs, BTreeMap::from([(0, "m:1".into()), (1, "s:1".into())]));
    assert_eq!(route.queue_datas[0].write_queue_nums, 4);
}

#[test]
fn an_old_connection_does_not_take_a_new_registration_with_it() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "m:1", 1, 1, &["T", "U"]));
    bench.register(5, broker("a", 0, "m:1", 2, 1, &["T", "U"]));
    assert_eq!(bench.disconnected(1), 0);
    assert!(bench.table.route("T", false).is_some());
    assert_eq!(bench.disconnected(2), 1);
    assert_eq!(bench.table.route("T", false), None);
    assert!(bench.table.cluster_info().cluster_addr_table.is_empty());
    assert_eq!(bench.disconnected(2), 0);
}

#[test]
fn silence_ends_a_broker_and_a_sign_of_life_does_not() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "a:1", 1, 1, &["T", "U"]));
    bench.register(0, Registration { expiry: S * 10, ..broker("b", 0, "b:1", 2, 1, &["T", "U"]) });
    assert_eq!(bench.expire(10), 0);
    assert_eq!(bench.expire(11), 1, "b has its own time");
    bench.table.touch(&address("a:1"), bench.start + S * 100);
    assert_eq!(bench.expire(121), 0);
    bench.register(219, broker("a", 0, "a:1", 1, 1, &["T", "U"]));
    assert_eq!(bench.expire(339), 0);
    assert_eq!(bench.expire(340), 1);
    // The connection lives on; the next registration brings everything back, unchanged as it is.
    let back = bench.register(350, broker("a", 0, "a:1", 1, 1, &["T", "U"]));
    assert!(back.new_broker);
    assert_eq!(back.new_topics.len(), 2);
    assert_eq!(bench.disconnected(1), 1);
}

#[test]
fn a_slave_becomes_the_master_and_the_topics_stay() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "m:1", 1, 1, &["T", "U"]));
    bench.register(0, broker("a", 1, "s:1", 2, 1, &["T", "U"]));
    bench.disconnected(1);
    assert!(bench.table.route("T", false).is_some(), "consumers can read from the slave");
    bench.register(1, broker("a", 0, "s:1", 3, 1, &["T", "V"]));
    assert_eq!(bench.addrs("a"), [(0, "s:1".into())]);
    assert!(bench.table.route("U", false).is_some() && bench.table.route("V", false).is_some());
    assert_eq!(bench.disconnected(2), 0, "its connection as a slave says nothing any more");
    // And down again, as the only member: the group's topics stay.
    bench.register(2, broker("a", 1, "s:1", 4, 1, &["T"]));
    assert_eq!(bench.addrs("a"), [(1, "s:1".into())]);
    assert!(bench.table.route("T", false).is_some());
}

#[test]
fn the_last_writer_takes_the_place_unless_its_state_is_older() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "old:1", 1, 1, &["T", "U"]));
    assert!(bench.register(1, broker("a", 0, "new:1", 2, 1, &["T", "U"])).new_broker);
    assert_eq!(bench.addrs("a"), [(0, "new:1".into())]);
    assert_eq!(bench.disconnected(1), 0, "the old one's end takes nothing away");
    assert!(bench.table.unregister(&address("old:1"), "a", 0).is_none());
    assert_eq!(bench.addrs("a"), [(0, "new:1".into())]);

    let mut newer = broker("a", 0, "newer:1", 3, 1, &["T", "U"]);
    newer.body.topic_config_serialize_wrapper.data_version.state_version = 2;
    bench.register(2, newer);
    assert!(bench.register(3, broker("a", 0, "new:1", 2, 9, &["T", "U"])).superseded);
    assert_eq!(bench.addrs("a"), [(0, "newer:1".into())]);
}

#[test]
fn an_address_stands_in_one_place() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "x:1", 1, 1, &["T", "U"]));
    bench.register(1, broker("b", 0, "x:1", 2, 1, &["V", "W"]));
    assert!(bench.addrs("a").is_empty() && bench.table.route("T", false).is_none());
    assert_eq!(bench.addrs("b"), [(0, "x:1".into())]);
    // The same address in another cluster is another broker.
    let mut other = broker("d", 0, "x:1", 3, 1, &["T", "U"]);
    other.cluster = "d".into();
    bench.register(2, other);
    assert_eq!(bench.table.cluster_info().cluster_addr_table.len(), 2);
    bench.table.unregister(&address("x:1"), "b", 0).unwrap();
    bench.check();
    assert_eq!(bench.table.topics().topic_list, ["T", "U"]);
}

#[test]
fn unregistering_is_of_one_place_only() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "m:1", 1, 1, &["T", "U"]));
    for (addr, name, id) in [("m:2", "a", 0), ("m:1", "b", 0), ("m:1", "a", 1)] {
        assert_eq!(bench.table.unregister(&address(addr), name, id), None);
    }
    let removed = bench.table.unregister(&address("m:1"), "a", 0).unwrap();
    assert_eq!((removed.broker_name.as_str(), removed.broker_id, removed.addr.as_str()), ("a", 0, "m:1"));
    bench.check();
    assert!(bench.table.topics().topic_list.is_empty());
}

#[test]
fn topics_are_merged_and_wiped_permissions_last_until_a_change() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "m:1", 1, 1, &["T", "U"]));
    assert_eq!(bench.table.wipe_write_perm("a"), 2);
    bench.register(30, broker("a", 0, "m:1", 1, 1, &["T", "U"]));
    assert_eq!(bench.perm("T", "a"), Some(PERM_READ));
    // One topic alone, with a new version: a change of that topic.
    bench.register(40, broker("a", 0, "m:1", 1, 2, &["V"]));
    assert_eq!(bench.table.topics().topic_list, ["T", "U", "V"]);
    assert_eq!(bench.perm("T", "a"), Some(PERM_READ));
    bench.register(50, broker("a", 0, "m:1", 1, 3, &["T", "V"]));
    assert_eq!((bench.perm("T", "a"), bench.perm("U", "a")), (Some(6), Some(PERM_READ)));
    assert_eq!(bench.table.add_write_perm("a"), 3);
    assert_eq!(bench.perm("U", "a"), Some(6));
    assert_eq!(bench.table.wipe_write_perm("nobody"), 0);
}

#[test]
fn a_topic_deleted_here_comes_back_with_the_brokers_that_keep_it() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "a:1", 1, 1, &["T", "U"]));
    let mut other = broker("b", 0, "b:1", 2, 1, &["T", "U"]);
    other.cluster = "d".into();
    bench.register(0, other);
    bench.table.delete_topic("T", Some("c"));
    bench.check();
    assert_eq!(bench.table.route("T", false).unwrap().broker_datas[0].broker_name, "b");
    bench.table.delete_topic("T", None);
    assert_eq!(bench.table.route("T", false), None);
    bench.register(30, broker("a", 0, "a:1", 1, 1, &["T", "U"]));
    assert!(bench.table.route("T", false).is_some(), "also with an unchanged version");
}

#[test]
fn a_change_that_came_first_is_not_taken_for_the_whole_table() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "a:1", 1, 7, &["New"]));
    let whole = DataVersion { counter: 7, ..DataVersion::default() };
    assert_ne!(bench.table.data_version(&address("a:1")), Some(&whole));
    bench.register(30, broker("a", 0, "a:1", 1, 7, &["New", "T"]));
    assert_eq!(bench.table.data_version(&address("a:1")), Some(&whole));
    assert_eq!(bench.table.topics().topic_list, ["New", "T"]);
}

#[test]
fn absent_topics_go_where_that_is_wanted() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "a:1", 1, 1, &["T", "U", "V"]));
    bench.table.register(broker("a", 0, "a:1", 1, 2, &["W"]), true, bench.start);
    assert_eq!(bench.table.topics().topic_list.len(), 4, "one topic alone is a change of that topic");
    bench.table.register(broker("a", 0, "a:1", 1, 3, &["T", "W"]), true, bench.start);
    bench.check();
    assert_eq!(bench.table.topics().topic_list, ["T", "W"]);
}

#[test]
fn a_slave_acts_as_master_where_everybody_wants_that() {
    let mut bench = Bench::new();
    let slave = |acting| Registration { acting_master: acting, ..broker("a", 2, "s:2", 2, 1, &["T", "U"]) };
    bench.register(0, slave(Some(true)));
    assert_eq!(bench.perm("T", "a"), Some(PERM_READ), "it brings its topics, and takes no messages");
    let addrs = |route: rocketmq_remoting::bodies::TopicRoute| route.broker_datas[0].broker_addrs.clone();
    assert_eq!(addrs(bench.table.route("T", true).unwrap()), BTreeMap::from([(0, "s:2".into())]));
    assert_eq!(addrs(bench.table.route("T", false).unwrap()), BTreeMap::from([(2, "s:2".into())]));
    bench.register(1, broker("a", 0, "m:1", 1, 1, &["T", "U"]));
    assert_eq!(addrs(bench.table.route("T", true).unwrap()).len(), 2);
    assert_eq!(bench.perm("T", "a"), Some(6));
}

#[test]
fn lists_of_topics_are_filtered() {
    let mut bench = Bench::new();
    let mut units = broker("a", 0, "a:1", 1, 1, &["Plain", "Sub", "Unit", "UnitSub"]);
    for (topic, flag) in [("Unit", 1), ("Sub", 2), ("UnitSub", 3)] {
        let table = &mut units.body.topic_config_serialize_wrapper.topic_config_table;
        table.get_mut(topic).unwrap().topic_sys_flag = flag;
    }
    bench.register(0, units);
    assert_eq!(bench.table.unit_topics(UnitTopics::Unit).topic_list, ["Unit", "UnitSub"]);
    assert_eq!(bench.table.unit_topics(UnitTopics::HasUnitSub).topic_list, ["Sub", "UnitSub"]);
    assert_eq!(bench.table.unit_topics(UnitTopics::HasUnitSubUnunit).topic_list, ["Sub"]);
    assert_eq!(bench.table.topics_of_cluster("c").topic_list.len(), 4);
    assert!(bench.table.topics_of_cluster("d").topic_list.is_empty());
    let system = bench.table.system_topics();
    assert_eq!((system.topic_list, system.broker_addr), (vec!["c".into(), "a".into()], Some("a:1".into())));
}

#[test]
fn a_single_topic_is_registered_on_known_brokers_only() {
    let mut bench = Bench::new();
    bench.register(0, broker("a", 0, "a:1", 1, 1, &["T", "U"]));
    let on = |name: &str| QueueData { broker_name: name.into(), read_queue_nums: 2, ..QueueData::default() };
    assert_eq!(bench.table.register_topic("S", vec![on("a"), on("b")]), Err("b".into()));
    assert_eq!(bench.table.route("S", false), None);
    bench.table.register_topic("S", vec![on("a")]).unwrap();
    bench.table.register_topic("None", Vec::new()).unwrap();
    bench.check();
    assert_eq!(bench.table.route("S", false).unwrap().queue_datas[0].read_queue_nums, 2);
}

/// Any order of events keeps the table whole; a failure prints the seed to run again.
#[test]
fn random_events_keep_the_table_whole() {
    let seeds = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..300u64, |seed| seed..seed + 1);
    for seed in seeds {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) % bound
        };
        println!("SEED={seed}");
        let mut bench = Bench::new();
        let mut clock = 0;
        for _ in 0..60 {
            clock += next(40) as u32;
            let (name, addr) = (["a", "b"][next(2) as usize], ["x:1", "y:1", "z:1"][next(3) as usize]);
            let (id, peer) = (next(3) as i64, next(4));
            match next(7) {
                0 => drop(bench.disconnected(peer)),
                1 => drop(bench.expire(clock)),
                2 => drop(bench.table.unregister(&address(addr), name, id)),
                3 => bench.table.delete_topic("T", [None, Some("c")][next(2) as usize]),
                _ => {
                    let topics = [&["T", "U"][..], &["T"], &["U", "V"]][next(3) as usize];
                    let registered = bench.register(clock, broker(name, id, addr, peer, next(3) as i64, topics));
                    assert!(!registered.superseded);
                    assert_eq!(bench.addrs(name).iter().filter(|(_, there)| there == addr).count(), 1);
                }
            }
            bench.check();
        }
    }
}
