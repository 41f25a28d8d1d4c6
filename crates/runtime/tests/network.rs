//! Root tests of the network: each test makes its own "host" (a network namespace) and an "outside" behind it, so the
//! machine's own interfaces, rules and settings are never touched.
#![allow(missing_docs)]

#[path = "network/host.rs"]
mod host;

use std::{net::Ipv4Addr, time::Instant};

use host::{Host, Reach, answer, namespace};
use kiln_runtime::network::{METADATA, Mode, NetworkError, SLOTS};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[test]
fn root_fleet_servers_reach_each_other_the_host_reaches_them_and_they_reach_out() {
    let host = Host::new();
    let network = host.open("0000000a");
    let (first, second) = (namespace(), namespace());
    let a = network.attach(0, first.fd(), Mode::Fleet).unwrap();
    let b = network.attach(1, second.fd(), Mode::Fleet).unwrap();
    let _server = answer(&second, b.address);
    let _world = answer(&host.outside, OUTSIDE);
    assert_eq!(first.reach(b.address), Reach::Answered, "server to server, at once");
    assert_eq!(host.reach(b.address), Reach::Answered, "host to server");
    assert_eq!(first.reach(OUTSIDE), Reach::Answered, "server to outside");
    assert_eq!(host::last_peer(&host.outside, OUTSIDE, &first), Some(Host::ADDRESS), "with the host's address");
    assert_eq!(a.port, "k0000000a-0");
}

#[test]
fn root_isolated_servers_only_answer_the_host() {
    let host = Host::new();
    let network = host.open("0000000b");
    let (fleet, isolated, other) = (namespace(), namespace(), namespace());
    let f = network.attach(0, fleet.fd(), Mode::Fleet).unwrap();
    let i = network.attach(1, isolated.fd(), Mode::Isolated).unwrap();
    let o = network.attach(2, other.fd(), Mode::Isolated).unwrap();
    let _servers = [answer(&fleet, f.address), answer(&isolated, i.address), answer(&other, o.address)];
    let _world = answer(&host.outside, OUTSIDE);
    assert_eq!(host.reach(i.address), Reach::Answered);
    assert_eq!(isolated.reach(f.address), Reach::Silent);
    assert_eq!(isolated.reach(o.address), Reach::Silent);
    assert_eq!(fleet.reach(i.address), Reach::Silent);
    isolated.route_everything_to(i.gateway);
    assert_eq!(isolated.reach(OUTSIDE), Reach::Silent, "even with a default route of its own");
    assert_eq!(isolated.reach(Host::ADDRESS), Reach::Silent);
}

#[test]
fn root_build_steps_reach_out_but_no_server() {
    let host = Host::new();
    let network = host.open("0000000c");
    let (fleet, build) = (namespace(), namespace());
    let f = network.attach(0, fleet.fd(), Mode::Fleet).unwrap();
    let b = network.attach(1000, build.fd(), Mode::Build).unwrap();
    let _servers = [answer(&fleet, f.address), answer(&build, b.address)];
    let _world = answer(&host.outside, OUTSIDE);
    assert_eq!(build.reach(OUTSIDE), Reach::Answered);
    assert_eq!(build.reach(f.address), Reach::Silent);
    assert_eq!(fleet.reach(b.address), Reach::Silent);
}

#[test]
fn root_the_hosts_services_and_the_clouds_metadata_are_out_of_reach() {
    let host = Host::new();
    let network = host.open("0000000d");
    let server = namespace();
    let a = network.attach(0, server.fd(), Mode::Fleet).unwrap();
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    host.give_outside(metadata);
    let _services = [host.answer(a.gateway), host.answer(Host::ADDRESS), answer(&host.outside, metadata)];
    assert_eq!(host.reach(metadata), Reach::Answered, "the host itself may ask");
    assert_eq!(server.reach(metadata), Reach::Silent);
    assert_eq!(server.reach(a.gateway), Reach::Silent);
    assert_eq!(server.reach(Host::ADDRESS), Reach::Silent);
    assert!(server.ping(a.gateway), "ICMP is answered");
}

#[test]
fn root_ports_the_host_offers_are_reachable_at_the_gateway_only() {
    let host = Host::new();
    let network = host.open_offering("0000000e", &[host::PORT]);
    let server = namespace();
    let a = network.attach(0, server.fd(), Mode::Fleet).unwrap();
    let _services = [host.answer(a.gateway), host.answer(Host::ADDRESS)];
    assert_eq!(server.reach(a.gateway), Reach::Answered);
    assert_eq!(server.reach(Host::ADDRESS), Reach::Silent);
}

#[test]
fn root_a_port_for_tests_is_reached_by_isolated_servers_only() {
    let host = Host::new();
    let network = host.open("0000001c");
    let (fleet, isolated, build) = (namespace(), namespace(), namespace());
    let a = network.attach(0, fleet.fd(), Mode::Fleet).unwrap();
    network.attach(1, isolated.fd(), Mode::Isolated).unwrap();
    network.attach(1000, build.fd(), Mode::Build).unwrap();
    let _services = [host.answer(a.gateway), host.answer(Host::ADDRESS)];
    assert_eq!(isolated.reach(a.gateway), Reach::Silent, "until it is offered");
    network.offer_metadata(9).unwrap();
    network.offer_to_tests(host::PORT).unwrap();
    assert_eq!(isolated.reach(a.gateway), Reach::Answered);
    assert_eq!(host.reach(a.gateway), Reach::Answered, "the host itself waits for its service");
    assert_eq!(isolated.reach(Host::ADDRESS), Reach::Silent);
    for other in [&fleet, &build] {
        assert_eq!(other.reach(a.gateway), Reach::Silent);
    }
    host.outside.route_everything_to(Host::ADDRESS);
    assert_eq!(host.outside.reach(a.gateway), Reach::Silent, "not even a neighbour who knows the way");
    network.withdraw_from_tests(host::PORT).unwrap();
    assert_eq!(isolated.reach(a.gateway), Reach::Silent);
    assert_eq!(host.outside.reach(a.gateway), Reach::Answered, "which the filter alone prevented");
}

#[test]
fn root_metadata_is_led_to_the_bridge_and_nothing_else_is_opened() {
    let host = Host::new();
    let network = host.open("00000019");
    let (fleet, isolated, other) = (namespace(), namespace(), namespace());
    let f = network.attach(0, fleet.fd(), Mode::Fleet).unwrap();
    let i = network.attach(1, isolated.fd(), Mode::Isolated).unwrap();
    let o = network.attach(2, other.fd(), Mode::Fleet).unwrap();
    host.give_outside(METADATA);
    let _services = [host.answer(f.gateway), host.answer(Host::ADDRESS), answer(&host.outside, METADATA)];
    let _servers = [answer(&other, o.address)];
    assert_eq!(fleet.ask_metadata(), None, "until it is offered");
    network.offer_metadata(host::PORT).unwrap();
    assert_eq!(fleet.ask_metadata(), Some(f.address), "by its own address");
    assert_eq!(isolated.ask_metadata(), Some(i.address));
    assert_eq!(host.reach(METADATA), Reach::Answered, "the host still reaches the cloud's");
    for server in [&fleet, &isolated] {
        assert_eq!(server.reach(METADATA), Reach::Silent, "another port");
        assert_eq!(server.reach(f.gateway), Reach::Silent, "the port itself");
        assert_eq!(server.reach(Host::ADDRESS), Reach::Silent);
    }
    assert_eq!(isolated.reach(o.address), Reach::Silent);
    assert_eq!(isolated.reach(OUTSIDE), Reach::Silent);
    fleet.add_address(o.address);
    assert_eq!(fleet.ask_metadata_from(o.address), None, "not in another's name");
    drop(network);
    let again = host.open("00000019");
    again.offer_metadata(host::PORT).unwrap();
    assert_eq!(isolated.ask_metadata(), Some(i.address), "after the daemon came back");
}

#[test]
fn root_metadata_of_two_state_directories_stays_apart() {
    let host = Host::new();
    let (one, two) = (host.open("0000001a"), host.open("0000001b"));
    let (a, b) = (namespace(), namespace());
    let first = one.attach(0, a.fd(), Mode::Fleet).unwrap();
    let second = two.attach(0, b.fd(), Mode::Isolated).unwrap();
    let _services = [host.answer(first.gateway), host.answer(second.gateway)];
    one.offer_metadata(host::PORT).unwrap();
    assert_eq!((a.ask_metadata(), b.ask_metadata()), (Some(first.address), None));
    two.offer_metadata(host::PORT).unwrap();
    assert_eq!((a.ask_metadata(), b.ask_metadata()), (Some(first.address), Some(second.address)));
    one.purge().unwrap();
    assert_eq!(b.ask_metadata(), Some(second.address));
}

#[test]
fn root_spoofed_addresses_are_dropped() {
    let host = Host::new();
    let network = host.open("0000000f");
    let (liar, victim) = (namespace(), namespace());
    let l = network.attach(0, liar.fd(), Mode::Fleet).unwrap();
    let v = network.attach(1, victim.fd(), Mode::Fleet).unwrap();
    let _server = answer(&victim, v.address);
    assert_eq!(liar.reach(v.address), Reach::Answered);
    let spare = network.subnet().address(5);
    liar.add_address(spare);
    assert_eq!(liar.reach_from(spare, v.address), Reach::Silent, "another IPv4 address");
    let frames = victim.listen_to_frames();
    liar.send_frame(&host::arp_claim(host::mac(l.address), host::mac(l.address), v.gateway));
    liar.send_frame(&host::arp_claim(host::mac(l.address), host::mac(v.gateway), l.address));
    liar.send_frame(&host::arp_claim(host::mac(v.gateway), host::mac(l.address), l.address));
    liar.send_frame(&host::foreign_ethertype(host::mac(l.address)));
    assert_eq!(frames.count(), 0, "lies in ARP, and frames that are neither IPv4 nor ARP");
    liar.send_frame(&host::arp_claim(host::mac(l.address), host::mac(l.address), l.address));
    assert_eq!(frames.count(), 1, "the truth passes");
}

#[test]
fn root_two_state_directories_do_not_disturb_each_other() {
    let host = Host::new();
    let (one, two) = (host.open("00000010"), host.open("00000011"));
    assert!(!one.subnet().overlaps(two.subnet().network(), two.subnet().prefix()));
    let (a, b) = (namespace(), namespace());
    one.attach(0, a.fd(), Mode::Fleet).unwrap();
    let second = two.attach(0, b.fd(), Mode::Fleet).unwrap();
    let _server = answer(&b, second.address);
    let _world = answer(&host.outside, OUTSIDE);
    assert_eq!(a.reach(second.address), Reach::Silent, "not even through the host");
    one.purge().unwrap();
    assert_eq!(host.reach(second.address), Reach::Answered);
    assert_eq!(b.reach(OUTSIDE), Reach::Answered, "forwarding stays on while somebody needs it");
    two.purge().unwrap();
}

#[test]
fn root_purge_puts_everything_back() {
    let host = Host::new();
    let before = host.snapshot();
    let network = host.open("00000012");
    let servers = [namespace(), namespace()];
    for (slot, server) in (0..).zip(&servers) {
        network.attach(slot, server.fd(), Mode::Fleet).unwrap();
    }
    assert_eq!(network.list().unwrap().iter().map(|port| port.slot).collect::<Vec<_>>(), [0, 1]);
    assert_ne!(host.snapshot(), before);
    network.purge().unwrap();
    assert_eq!(host.snapshot(), before);
    kiln_runtime::network::purge("00000012", &host.run_dir("00000012"), host.shared_dir()).unwrap();
    assert_eq!(host.snapshot(), before, "purging nothing changes nothing");
}

#[test]
fn root_a_host_that_forwards_already_goes_on_forwarding() {
    let host = Host::new();
    host.set_forwarding("1");
    let before = host.snapshot();
    let network = host.open("00000013");
    network.purge().unwrap();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn root_opening_again_finds_the_same_network_and_its_servers() {
    let host = Host::new();
    let network = host.open("00000014");
    let server = namespace();
    let a = network.attach(7, server.fd(), Mode::Isolated).unwrap();
    let _server = answer(&server, a.address);
    drop(network);
    let again = host.open("00000014");
    assert_eq!(again.list().unwrap().len(), 1);
    assert_eq!(again.list().unwrap()[0].mode, Some(Mode::Isolated));
    assert_eq!(host.reach(a.address), Reach::Answered);
}

#[test]
fn root_slots_are_reused_detached_and_bounded() {
    let host = Host::new();
    let network = host.open("00000015");
    let (old, new) = (namespace(), namespace());
    let first = network.attach(3, old.fd(), Mode::Fleet).unwrap();
    let second = network.attach(3, new.fd(), Mode::Fleet).unwrap();
    assert_eq!(first, second, "a successor has the same address");
    let _server = answer(&new, second.address);
    assert_eq!(host.reach(second.address), Reach::Answered);
    assert!(network.detach(3).unwrap());
    assert!(!network.detach(3).unwrap());
    assert!(matches!(network.attach(SLOTS, new.fd(), Mode::Fleet), Err(NetworkError::Slot(_))));
    assert!(network.list().unwrap().is_empty());
}

#[test]
fn root_a_dropping_forward_chain_is_named() {
    let host = Host::new();
    let network = host.open("00000016");
    assert_eq!(network.findings().unwrap(), []);
    host.drop_forwarded_packets();
    let findings = network.findings().unwrap();
    assert_eq!(findings.len(), 1);
    assert!(findings[0].found.contains("foreign forward"), "{}", findings[0].found);
}

#[test]
fn root_an_overlapping_subnet_is_refused() {
    let host = Host::new();
    let error = host.try_open("00000017", Some("192.0.0.0/16".parse().unwrap())).unwrap_err();
    assert!(error.to_string().contains("192.0.2.2/24"), "{error}");
}

#[test]
fn root_attaching_is_quick() {
    let host = Host::new();
    let network = host.open("00000018");
    let servers: Vec<_> = (0..50).map(|_| namespace()).collect();
    let mut times: Vec<_> = (0..)
        .zip(&servers)
        .map(|(slot, server)| {
            let start = Instant::now();
            network.attach(slot, server.fd(), Mode::Fleet).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("attach: best {:?}, median {:?}, slowest {:?}", times[0], times[25], times[49]);
    assert!(times[25].as_millis() < 10);
}
