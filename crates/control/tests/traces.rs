//! What is done to a group, as traces.

mod world;

use std::{collections::BTreeMap, time::Duration};

use kiln_control::{
    Control, ControlOptions,
    traces::{Sink, Span, SpanId, Value},
};
use kiln_testkit::Manners;
use tokio::sync::mpsc::Receiver;
use world::{World, group, release, stateful, up, wanted, web};

fn quick() -> Manners {
    let ms = Duration::from_millis;
    Manners { launch: ms(2), ready: ms(5), stop: ms(2), destroy: ms(1), ..Manners::default() }
}

async fn open(world: &World) -> (Control, Receiver<Span>) {
    let (sink, spans) = Sink::new();
    (world.open_with(ControlOptions { traces: Some(sink), ..world.options() }).await, spans)
}

/// Everything up to the end of the next trace.
async fn trace(spans: &mut Receiver<Span>) -> (Span, Vec<Span>) {
    let mut all = Vec::new();
    loop {
        let span = tokio::time::timeout(Duration::from_secs(10), spans.recv()).await;
        let span = span.unwrap_or_else(|_| panic!("no trace came to its end: {all:#?}")).unwrap();
        if span.parent.is_none() {
            return (span, all);
        }
        all.push(span);
    }
}

fn says<'a>(span: &'a Span, key: &str) -> &'a str {
    match span.attributes.iter().find(|(known, _)| *known == key) {
        Some((_, Value::Text(text))) => text,
        other => panic!("{key} is {other:?} in {span:#?}"),
    }
}

fn named<'a>(spans: &'a [Span], name: &'a str) -> impl Iterator<Item = &'a Span> {
    spans.iter().filter(move |span| span.name == name)
}

/// One trace: every step is inside its parent, and the steps of a launch add up to it.
fn assert_whole(root: &Span, steps: &[Span]) {
    let known: BTreeMap<SpanId, &Span> = steps.iter().chain([root]).map(|span| (span.id, span)).collect();
    assert_eq!(known.len(), steps.len() + 1, "ids are unique");
    for span in steps {
        assert_eq!(span.trace, root.trace, "{span:#?}");
        let parent = known.get(&span.parent.unwrap()).unwrap_or_else(|| panic!("no parent: {span:#?}"));
        let inside = parent.start <= span.start && span.start <= span.end && span.end <= parent.end;
        assert!(inside, "{span:#?} is not inside {parent:#?}");
    }
    for launch in ["launch", "hand-over", "take"]
        .into_iter()
        .flat_map(|name| named(steps, name))
        .filter(|launch| launch.error.is_none())
    {
        let parts: Vec<&Span> = steps.iter().filter(|span| span.parent == Some(launch.id)).collect();
        assert_eq!(parts.iter().map(|part| part.name).collect::<Vec<_>>(), ["queue", "start", "readiness"]);
        let sum: u64 = parts.iter().map(|part| part.end - part.start).sum();
        assert_eq!(sum, launch.end - launch.start, "{launch:#?}");
        let start = parts[1].id;
        assert!(steps.iter().any(|span| span.parent == Some(start) && span.name == "launched"), "{steps:#?}");
    }
}

#[tokio::test]
async fn host_a_rollout_is_one_trace_whose_steps_lie_inside_their_parents() {
    let world = World::new(quick());
    let (control, mut spans) = open(&world).await;
    up(&control, wanted(1, group(3))).await;
    let (first, steps) = trace(&mut spans).await;
    assert_whole(&first, &steps);
    assert_eq!((first.name, named(&steps, "launch").count(), named(&steps, "route").count()), ("rollout", 3, 3));
    up(&control, wanted(2, group(3))).await;
    let (root, steps) = trace(&mut spans).await;
    assert_whole(&root, &steps);
    assert_ne!(root.trace, first.trace);
    assert_eq!((root.name, says(&root, "kiln.group"), says(&root, "kiln.outcome")), ("rollout", "web", "done"));
    assert_eq!(says(&root, "kiln.release"), release(2).to_string());
    assert_eq!(says(&root, "kiln.release.from"), release(1).to_string());
    assert_eq!(root.moments.iter().map(|moment| moment.name).collect::<Vec<_>>(), ["running", "done"]);
    for name in ["launch", "route", "drain", "stop", "destroy"] {
        assert_eq!(named(&steps, name).count(), 3, "{name}: {steps:#?}");
    }
    let launch = named(&steps, "launch").next().unwrap();
    assert!(says(launch, "kiln.reason").contains("release") && says(launch, "kiln.server").starts_with("web-"));
    assert_eq!((root.error, spans.try_recv().ok()), (None, None));
}

#[tokio::test]
async fn host_a_rollout_that_is_taken_back_is_a_trace_that_failed() {
    let world = World::new(Manners { exits: [release(2)].into(), ..quick() });
    let (control, mut spans) = open(&world).await;
    let mut policy = group(2);
    policy.rollout.progress_deadline = Duration::from_millis(300);
    up(&control, wanted(1, policy.clone())).await;
    trace(&mut spans).await;
    up(&control, wanted(2, policy)).await.outcome.unwrap_err();
    let (root, steps) = trace(&mut spans).await;
    assert_whole(&root, &steps);
    assert!(root.error.as_ref().is_some_and(|error| error.contains("back on release")), "{root:#?}");
    assert_eq!(says(&root, "kiln.outcome"), "failed");
    assert!(named(&steps, "launch").any(|launch| launch.error.is_some()), "{steps:#?}");
}

#[tokio::test]
async fn host_healing_and_scaling_are_traces_of_their_own() {
    let world = World::new(quick());
    let (control, mut spans) = open(&world).await;
    up(&control, wanted(1, group(2))).await;
    trace(&mut spans).await;
    let victim = world.engine.running()[0].server.clone();
    world.engine.kill(&victim);
    let (root, steps) = trace(&mut spans).await;
    assert_whole(&root, &steps);
    assert_eq!((root.name, says(&root, "kiln.outcome")), ("heal", "done"));
    assert!(says(&root, "kiln.reason").starts_with(&format!("{victim}: it was ended")), "{root:#?}");
    assert_eq!((named(&steps, "launch").count(), named(&steps, "destroy").count()), (1, 1));
    for (count, name) in [(4, "scale-out"), (1, "scale-in")] {
        up(&control, wanted(1, group(count))).await;
        let (root, steps) = trace(&mut spans).await;
        assert_whole(&root, &steps);
        assert_eq!(root.name, name, "{root:#?}");
    }
    control.rebuild(&kiln_control::RebuildTarget::Group(web())).await.unwrap();
    assert_eq!(trace(&mut spans).await.0.name, "rebuild");
    control.down(&[web()]).await.unwrap();
    let (root, steps) = trace(&mut spans).await;
    assert_whole(&root, &steps);
    assert_eq!((root.name, named(&steps, "destroy").count()), ("remove", 1));
}

#[tokio::test]
async fn host_a_spare_has_no_part_in_a_trace_before_it_is_taken() {
    let world = World::new(quick());
    let (control, mut spans) = open(&world).await;
    let spared = || kiln_model::Group { spares: 1, ..group(2) };
    let held = async || control.group_status(&web()).await.unwrap().spares.is_some_and(|spares| spares.held == 1);
    up(&control, wanted(1, spared())).await;
    let (root, steps) = trace(&mut spans).await;
    assert_whole(&root, &steps);
    assert_eq!((root.name, named(&steps, "launch").count()), ("rollout", 2));
    for _ in 0..2 {
        world::until("a spare is held", &held).await;
        let victim = world.engine.running()[0].server.clone();
        world.engine.kill(&victim);
        let (root, steps) = trace(&mut spans).await;
        assert_whole(&root, &steps);
        assert_eq!((root.name, says(&root, "kiln.outcome")), ("heal", "done"), "{root:#?}");
        assert_eq!((named(&steps, "take").count(), named(&steps, "spare").count()), (1, 0), "{steps:#?}");
    }
}

#[tokio::test]
async fn host_volumes_that_go_to_the_next_server_are_a_step_of_the_trace() {
    let world = World::new(quick());
    world.shelf.volumes.store(true, std::sync::atomic::Ordering::SeqCst);
    let (control, mut spans) = open(&world).await;
    up(&control, wanted(1, stateful(1))).await;
    trace(&mut spans).await;
    up(&control, wanted(2, stateful(1))).await;
    let (root, steps) = trace(&mut spans).await;
    assert_whole(&root, &steps);
    for name in ["stage", "hand-over", "volumes-hand-over", "stop"] {
        assert_eq!(named(&steps, name).count(), 1, "{name}: {steps:#?}");
    }
}

#[tokio::test]
async fn host_a_rollout_that_outlives_a_daemon_is_one_trace() {
    let world = World::new(Manners { launch: Duration::from_millis(150), ..quick() });
    let (control, mut spans) = open(&world).await;
    control.apply(wanted(1, group(4))).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(10), spans.recv()).await.unwrap().unwrap();
    control.close().await;
    drop(control);
    let (control, mut later) = open(&world).await;
    world::settle(&control).await.outcome.unwrap();
    let (root, steps) = trace(&mut later).await;
    assert_eq!((root.trace, root.name), (first.trace, "rollout"));
    assert!(root.start <= first.start && steps.iter().all(|step| step.trace == root.trace));
}
