//! Groups that follow their load: what the rule does in plain cases, and what it keeps under every load.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kiln_model::{
    Fleet,
    fleet::Scaling,
    plan::{Asked, Load, ScaleDecision, ScaleInputs, ScaleMemory, scale},
};
use proptest::prelude::*;

/// A Wednesday.
const START: &str = "2026-11-25T00:00:00Z";
const EVERY: i64 = 5;

fn rules(count: &str) -> Scaling {
    let publish = "publish = [{ listen = 8080, port = 80, protocol = \"http\" }]";
    let text = format!("[group.web]\nimage = \"hello\"\n{publish}\ncount = {count}\n");
    let fleet = Fleet::parse(&text, "fleet.toml").unwrap();
    fleet.groups.into_values().next().unwrap().scaling.unwrap()
}

/// A group under a rule, read every five seconds.
struct Group {
    rules: Scaling,
    memory: ScaleMemory,
    count: u32,
    now: Timestamp,
}

impl Group {
    fn new(count: &str) -> Self {
        let rules = rules(count);
        Self { count: rules.min.max(1), rules, memory: ScaleMemory::default(), now: START.parse().unwrap() }
    }
    fn read(&mut self, total: Result<f64, String>) -> ScaleDecision {
        let asked = if self.rules.min == 0 && total != Ok(0.0) { Asked::Something } else { Asked::Nothing };
        self.read_asked(total, asked)
    }
    fn read_asked(&mut self, total: Result<f64, String>, asked: Asked) -> ScaleDecision {
        self.now += SignedDuration::from_secs(EVERY);
        let load = Load { at: self.now, total, asked };
        let (from, rules, memory) = (self.count, self.rules.clone(), Some(self.memory.essence()));
        let inputs = ScaleInputs { from, to: from, load: load.clone(), rules, memory };
        let decision = scale(&self.rules, &mut self.memory, self.count, &load);
        assert_eq!(inputs.again().as_ref(), Some(&decision), "from the little that the audit log keeps");
        self.count = decision.count;
        decision
    }
    /// Reads the same load for so many seconds.
    fn under(&mut self, total: f64, seconds: i64) -> u32 {
        (0..seconds / EVERY).for_each(|_| drop(self.read(Ok(total))));
        self.count
    }
}

const WEB: &str = "{ min = 2, max = 20, target = { requests_per_second = 100 } }";

#[test]
fn unit_a_group_grows_at_once_and_shrinks_after_a_time_of_less_load() {
    let mut group = Group::new(WEB);
    assert_eq!(group.read(Ok(150.0)).count, 2);
    let grown = group.read(Ok(900.0));
    assert_eq!(grown.count, 9);
    assert_eq!(grown.why, "900.0 requests/s, of which each server is to carry 100; from 2 to 9 servers");
    assert_eq!(group.under(100.0, 295), 9, "for five minutes it could come back");
    assert_eq!(group.under(100.0, 15), 2);
    assert_eq!(group.under(1e9, 5), 20, "never more than the most");
}

#[test]
fn unit_a_short_dip_takes_nothing_away_and_the_highest_of_the_time_counts() {
    let mut group = Group::new(WEB);
    group.under(1000.0, 60);
    group.under(0.0, 120);
    group.under(600.0, 5);
    group.under(0.0, 200);
    assert_eq!(group.count, 7, "600 is more than nine tenths of six servers' share");
    assert_eq!(group.under(0.0, 300), 2);
}

#[test]
fn unit_growth_is_taken_in_steps_with_a_wait_between_them() {
    let mut group =
        Group::new("{ min = 1, max = 50, target = { connections = 10 }, scale_out = { wait = \"30s\", step = 4 } }");
    assert_eq!(group.read(Ok(400.0)).count, 5);
    let waits = group.read(Ok(400.0));
    assert_eq!((waits.count, waits.why.contains("the last change was less than 30s ago")), (5, true), "{}", waits.why);
    assert_eq!(group.under(400.0, 25), 9);
    assert_eq!(group.under(400.0, 3600), 37, "37 servers carry less than a tenth more than their share");
}

#[test]
fn unit_what_is_no_load_changes_nothing() {
    let mut group = Group::new(WEB);
    group.under(500.0, 10);
    for bad in [Ok(f64::NAN), Ok(-1.0), Ok(f64::INFINITY), Err("the gateway does not answer".to_owned())] {
        for _ in 0..200 {
            let held = group.read(bad.clone());
            assert_eq!(held.count, 5);
            assert!(held.why.contains("nothing changes"), "{}", held.why);
        }
    }
    assert_eq!(group.under(0.0, 290), 5, "what was not known was not less load");
    assert_eq!(group.under(0.0, 20), 2);
}

#[test]
fn unit_processor_time_and_numbers_of_the_application_are_followed_like_requests() {
    let mut group = Group::new("{ min = 2, max = 20, target = { cpu = \"60%\" } }");
    let grown = group.read(Ok(300.0));
    assert_eq!(
        grown.why,
        "300.0 % of a server's processor time, of which each server is to carry 60; from 2 to 5 servers"
    );
    let custom = "{ url = \"http://127.0.0.1:9/metrics\", metric = \"jobs{queue=\\\"mail\\\"}\", per_server = 2.5 }";
    let mut group = Group::new(&format!("{{ min = 1, max = 20, target = {{ custom = {custom} }} }}"));
    let grown = group.read(Ok(17.0));
    assert_eq!(grown.why, "17.0 jobs{queue=\"mail\"}, of which each server is to carry 2.5; from 1 to 7 servers");
    let held = group.read(Err("the value is 70 s old".to_owned()));
    assert_eq!(held.why, "the load is not known (the value is 70 s old), so nothing changes; the number is right");
}

const SLEEPY: &str = "{ min = 0, max = 20, target = { connections = 10 }, scale_out = { wait = \"30s\", step = 4 } }";

#[test]
fn unit_a_group_sleeps_when_nobody_asks_and_wakes_when_a_request_waits() {
    let mut group = Group::new(SLEEPY);
    assert_eq!(group.under(0.0, 300), 1, "it begins with one, and for five minutes somebody could ask");
    assert_eq!(
        group.read(Ok(0.0)).why,
        "0.0 requests under way, of which each server is to carry 10; from 1 to 0 servers after 5m of less load"
    );
    assert_eq!(group.under(0.0, 600), 0);
    let woken = group.read_asked(Ok(1.0), Asked::Waiting(1));
    assert_eq!((woken.count, woken.why.as_str()), (1, "1 request waits for a server; from 0 to 1 servers"));
    assert_eq!(group.under(0.0, 290), 1);
    group.under(0.0, 600);
    let woken = group.read_asked(Ok(300.0), Asked::Waiting(300));
    assert_eq!(
        woken.why, "300 requests wait for a server; from 0 to 4 servers",
        "as many as they ask for, a step at once"
    );
}

#[test]
fn unit_a_group_that_is_asked_now_and_then_does_not_sleep_nor_does_one_of_which_nothing_is_known() {
    let mut group = Group::new(SLEEPY);
    for reading in 0..500 {
        // Whoever asks is gone when it is read.
        let asked = if reading % 50 == 0 { Asked::Something } else { Asked::Nothing };
        assert_eq!(group.read_asked(Ok(0.0), asked).count, 1, "{reading}");
    }
    for _ in 0..500 {
        assert_eq!(group.read_asked(Err("the gateway does not answer".to_owned()), Asked::Nothing).count, 1);
    }
    group.under(0.0, 600);
    let known = group.read_asked(Err("the gateway does not answer".to_owned()), Asked::Nothing);
    assert_eq!((known.count, group.under(0.0, 600)), (0, 0), "what sleeps is not woken by a doubt");
}

#[test]
fn unit_a_schedule_raises_the_least_in_its_time_zone() {
    let mut group = Group::new(
        "{ min = 1, max = 10, target = { connections = 5 }, schedule = [{ during = \"mon-fri 08:00-18:00\", min = 4 }], \
         time_zone = \"Europe/Berlin\" }",
    );
    assert_eq!(group.under(0.0, 7 * 3600 - 5), 1, "it is 07:59:55 in Berlin");
    assert_eq!(
        group.read(Ok(0.0)).why,
        "0.0 requests under way, of which each server is to carry 5; at least 4 at this time"
    );
    assert_eq!(group.under(0.0, 10 * 3600 - 5), 4);
    assert_eq!(group.under(0.0, 400), 1);
}

#[test]
fn unit_a_clock_that_is_put_back_or_forward_takes_nothing_away_at_once() {
    let mut group = Group::new(WEB);
    group.under(1000.0, 60);
    group.now -= SignedDuration::from_hours(24);
    assert_eq!(group.under(0.0, 290), 10);
    group.now += SignedDuration::from_hours(24);
    group.under(1000.0, 5);
    assert_eq!(group.under(0.0, 290), 10);
}

/// A day of a shop: quiet at night, a slow morning, two peaks, an advertisement at 20:00, and noise; requests per second.
fn day(second: i64) -> f64 {
    let hour = second as f64 / 3600.0;
    let hill = |at: f64, width: f64, height: f64| height * (-((hour - at) / width).powi(2)).exp();
    let noise = 1.0 + 0.15 * ((second * 7919 % 1009) as f64 / 1009.0 - 0.5);
    let advertisement = if (20.0..20.25).contains(&hour) { 900.0 } else { 0.0 };
    (40.0 + hill(12.0, 2.0, 700.0) + hill(18.5, 1.5, 1100.0) + advertisement) * noise
}

#[test]
fn unit_a_day_of_load_is_followed_without_going_back_and_forth() {
    let mut group = Group::new(WEB);
    let (mut changes, mut short, mut servers) = (Vec::new(), 0u32, 0u64);
    for reading in 0..86_400 / EVERY {
        let load = day(reading * EVERY);
        let before = group.count;
        // The servers that are there meet the load before the next ones are.
        short += u32::from(load > f64::from(before) * 100.0 * 1.5);
        group.read(Ok(load));
        servers += u64::from(group.count);
        if group.count != before {
            changes.push(i64::from(group.count) - i64::from(before));
        }
    }
    let turns = changes.windows(2).filter(|pair| pair[0].signum() != pair[1].signum()).count();
    assert!(turns <= 5, "three peaks, so up and down three times: {changes:?}");
    assert!(changes.len() <= 60, "{changes:?}");
    assert!(short <= 2, "only the advertisement comes without a warning: {short}");
    let needed: f64 = (0..86_400 / EVERY).map(|reading| (day(reading * EVERY) / 100.0).max(2.0)).sum();
    let paid = servers as f64 / needed;
    assert!(paid < 1.35, "servers paid for in place of those needed: {paid}");
}

fn any_load() -> impl Strategy<Value = Result<f64, String>> {
    prop_oneof![
        8 => (0.0..5000.0f64).prop_map(Ok),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-3.0), Just(f64::MAX), Just(0.0)].prop_map(Ok),
        1 => Just(Err("it does not answer".to_owned())),
    ]
}

fn any_target(each: u32) -> impl Strategy<Value = String> {
    let custom = format!("custom = {{ url = \"http://127.0.0.1/\", per_server = {each} }}");
    prop_oneof![
        Just(format!("requests_per_second = {each}")),
        Just(format!("connections = {each}")),
        Just(format!("cpu = \"{each}%\"")),
        Just(custom),
    ]
}

fn any_rules() -> impl Strategy<Value = Scaling> {
    let shape = (0..10u32, 1..30u32, 1..300u32, 1..120u64, 1..600u64, 1..8u32, 1..8u32);
    let shape = shape.prop_flat_map(|shape| (Just(shape), any_target(shape.2)));
    shape.prop_map(|((min, more, _, out_wait, in_wait, out_step, in_step), target)| {
        // What is idle uses some processor time.
        let min = if target.starts_with("cpu") { min.max(1) } else { min };
        let max = min + more;
        rules(&format!(
            "{{ min = {min}, max = {max}, target = {{ {target} }}, \
                 scale_out = {{ wait = \"{out_wait}s\", step = {out_step} }}, \
                 scale_in = {{ wait = \"{in_wait}s\", step = {in_step} }} }}"
        ))
    })
}

proptest! {
    #[test]
    fn unit_no_load_leads_out_of_the_limits_or_faster_than_the_pace(
        rules in any_rules(),
        loads in prop::collection::vec(any_load(), 1..200),
    ) {
        let mut group = Group { count: rules.min.max(1), rules, memory: ScaleMemory::default(), now: START.parse().unwrap() };
        let mut changed: Option<Timestamp> = None;
        for load in loads {
            let before = group.count;
            group.read(load);
            let (out, inward) = (group.rules.scale_out, group.rules.scale_in);
            prop_assert!((group.rules.min..=group.rules.max).contains(&group.count));
            prop_assert!(group.count <= before + out.step && group.count + inward.step >= before);
            if group.count != before {
                let pace = if group.count > before { out } else { inward };
                let waited = changed.map_or(Duration::MAX, |at| Duration::try_from(group.now.duration_since(at)).unwrap());
                prop_assert!(waited >= pace.wait, "{waited:?} between changes");
                changed = Some(group.now);
            }
        }
    }

    #[test]
    fn unit_a_load_that_stays_is_met_and_then_nothing_changes(
        rules in any_rules(),
        first in prop::collection::vec(any_load(), 0..50),
        load in 0.0..5000.0f64,
    ) {
        let (least, most) = (rules.min, rules.max);
        let each = rules.target.each();
        let mut group = Group { count: rules.min.max(1), rules, memory: ScaleMemory::default(), now: START.parse().unwrap() };
        first.into_iter().for_each(|load| drop(group.read(load)));
        group.under(load, 40 * 720);
        let met = group.count;
        let carried = load / f64::from(met);
        prop_assert!(carried <= each * 1.1 + 1e-6 || met == most, "{met} servers carry {carried} each of {each}");
        let fewer = load / f64::from(met.saturating_sub(1));
        prop_assert!(met == least || fewer > each * 0.9 - 1e-6, "{met} servers where one fewer would carry {fewer}");
        for _ in 0..300 {
            prop_assert_eq!(group.read(Ok(load)).count, met);
        }
    }

    #[test]
    fn unit_decisions_are_the_same_when_they_are_replayed(
        rules in any_rules(),
        loads in prop::collection::vec(any_load(), 1..100),
        kept in 0..100usize,
    ) {
        let run = |interrupted: Option<usize>| {
            let start = START.parse().unwrap();
            let mut group = Group { count: rules.min.max(1), rules: rules.clone(), memory: ScaleMemory::default(), now: start };
            let mut decisions = Vec::new();
            for (number, load) in loads.iter().enumerate() {
                if interrupted == Some(number) {
                    // What a daemon keeps on disk is all there is.
                    let text = serde_json::to_string(&group.memory).unwrap();
                    group.memory = serde_json::from_str(&text).unwrap();
                }
                decisions.push(group.read(load.clone()));
            }
            decisions
        };
        prop_assert_eq!(run(None), run(Some(kept)));
    }
}
