use super::*;

/// Written by `ConsumerFilterManager` of 4.9.7, with another bloom filter than ours.
const JAVA_FILE: &str = "{
\t\"filterDataByTopic\":{
\t\t\"TopicA\":{
\t\t\t\"groupFilterData\":{
\t\t\t\t\"g1\":{
\t\t\t\t\t\"bloomFilterData\":{
\t\t\t\t\t\t\"bitNum\":216,
\t\t\t\t\t\t\"bitPos\":[203,37,62]
\t\t\t\t\t},
\t\t\t\t\t\"bornTime\":1795421488747,
\t\t\t\t\t\"clientVersion\":1795386299805,
\t\t\t\t\t\"consumerGroup\":\"g1\",
\t\t\t\t\t\"dead\":false,
\t\t\t\t\t\"deadTime\":0,
\t\t\t\t\t\"expression\":\"a > 5 AND b = 'it''s'\",
\t\t\t\t\t\"expressionType\":\"SQL92\",
\t\t\t\t\t\"topic\":\"TopicA\"
\t\t\t\t},
\t\t\t\t\"g2\":{
\t\t\t\t\t\"bloomFilterData\":{
\t\t\t\t\t\t\"bitNum\":216,
\t\t\t\t\t\t\"bitPos\":[185,92,186]
\t\t\t\t\t},
\t\t\t\t\t\"bornTime\":1795421488856,
\t\t\t\t\t\"clientVersion\":3,
\t\t\t\t\t\"consumerGroup\":\"g2\",
\t\t\t\t\t\"dead\":true,
\t\t\t\t\t\"deadTime\":1795421488857,
\t\t\t\t\t\"expression\":\"TRUE\",
\t\t\t\t\t\"expressionType\":\"SQL92\",
\t\t\t\t\t\"topic\":\"TopicA\"
\t\t\t\t}
\t\t\t},
\t\t\t\"topic\":\"TopicA\"
\t\t}
\t}
}";
const DAY_MS: i64 = 86_400_000;

fn open(dir: &tempfile::TempDir) -> ConsumerFilters {
    ConsumerFilters::open(dir.path(), BloomFilter::new(20, 64)).unwrap()
}

fn wants(topic: &str, expression: &str, sub_version: i64) -> SubscriptionData {
    SubscriptionData {
        topic: topic.into(),
        sub_string: expression.into(),
        sub_version,
        expression_type: "SQL92".into(),
        ..SubscriptionData::default()
    }
}

fn known(filters: &ConsumerFilters, topic: &str, group: &str) -> Option<(String, i64)> {
    filters.get(topic, group).map(|(sql, version)| (sql.text().to_owned(), version))
}

fn is_dead(filters: &ConsumerFilters, topic: &str, group: &str) -> bool {
    filters.shown(topic, group).contains("\"dead\":true")
}

#[test]
fn javas_file_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("consumerFilter.json");
    std::fs::write(&path, JAVA_FILE).unwrap();
    let filters = open(&dir);
    assert_eq!(known(&filters, "TopicA", "g1"), Some(("a > 5 AND b = 'it''s'".into(), 1_795_386_299_805)));
    assert!(is_dead(&filters, "TopicA", "g1"), "nobody has been heard yet");
    filters.register("g1", &[wants("TopicA", "a > 5 AND b = 'it''s'", 1_795_386_299_805)], 1_795_421_500_000);
    filters.persist(1_795_421_500_000, DAY_MS).unwrap();
    // Whatever the blanks: the same fields with the same values, in Java's order.
    let dense = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(dense(&std::fs::read_to_string(&path).unwrap()), dense(JAVA_FILE));
}

#[test]
fn the_newer_version_counts() {
    let dir = tempfile::tempdir().unwrap();
    let filters = open(&dir);
    filters.register("g", &[wants("T", "a = 1", 5)], 100);
    filters.register("g", &[wants("T", "a = 2", 5), wants("U", "b = 1", 1)], 200);
    assert_eq!(known(&filters, "T", "g"), Some(("a = 1".into(), 5)), "the same version changes nothing");
    filters.register("g", &[wants("T", "a = 2", 4), wants("U", "b = 1", 1)], 300);
    assert_eq!(known(&filters, "T", "g"), Some(("a = 1".into(), 5)), "an older one neither");
    filters.register("g", &[wants("T", "a = 1", 6), wants("U", "b = 1", 1)], 400);
    assert_eq!(known(&filters, "T", "g"), Some(("a = 1".into(), 6)));
    assert!(filters.shown("T", "g").contains("\"bornTime\":100,"), "it is still the same expression");
    filters.register("g", &[wants("T", "a = 3", 7)], 500);
    assert_eq!(known(&filters, "T", "g"), Some(("a = 3".into(), 7)));
    assert!(filters.shown("T", "g").contains("\"bornTime\":500,"));
    assert!(is_dead(&filters, "U", "g"), "the heartbeat did not name it");
    filters.register("g", &[wants("T", "a =", 8), wants("V", "=", 1), wants("W", "", 1)], 600);
    for topic in ["T", "V", "W"] {
        assert_eq!(known(&filters, topic, "g"), None, "what does not compile is not there");
    }
    let of_another_type = SubscriptionData { expression_type: "LUA".into(), ..wants("T", "a = 1", 9) };
    filters.register("g", &[of_another_type], 700);
    assert_eq!(known(&filters, "T", "g"), None);
    assert_eq!(filters.shown("T", "g"), "null");
}

#[test]
fn what_nobody_uses_dies_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let filters = open(&dir);
    filters.register("g", &[wants("T", "a = 1", 1), wants("U", "a = 1", 1)], 1_000);
    filters.register("other", &[wants("T", "a = 2", 1)], 1_000);
    filters.unregister("g", 2_000);
    assert!(is_dead(&filters, "T", "g") && is_dead(&filters, "U", "g") && !is_dead(&filters, "T", "other"));
    filters.unregister("g", 2_500);
    filters.register("g", &[wants("T", "a = 1", 1)], 2_600);
    assert!(!is_dead(&filters, "T", "g"), "the same version is alive again");
    filters.persist(2_000 + DAY_MS - 1, DAY_MS).unwrap();
    assert!(known(&filters, "U", "g").is_some());
    filters.persist(2_000 + DAY_MS, DAY_MS).unwrap();
    assert!(known(&filters, "U", "g").is_none() && known(&filters, "T", "g").is_some());
    // A group that turns to tags keeps nothing alive elsewhere, and what it reads by tags stays.
    filters.register("g", &[SubscriptionData { expression_type: "TAG".into(), ..wants("V", "*", 3) }], 3_000);
    assert!(is_dead(&filters, "T", "g"));
    filters.persist(4_000, DAY_MS).unwrap();
    let again = open(&dir);
    assert!(known(&again, "T", "g").is_some() && known(&again, "T", "other").is_some());
    assert!(is_dead(&again, "T", "other"), "until it is heard");
}

#[test]
fn a_file_that_cannot_be_compiled_loses_only_that_entry() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("consumerFilter.json"), JAVA_FILE.replace("\"TRUE\"", "\"TRUE AND\"")).unwrap();
    let filters = open(&dir);
    assert!(known(&filters, "TopicA", "g1").is_some() && known(&filters, "TopicA", "g2").is_none());
}
