//! Watching a server that serves: services whose recipe says how to know that they still work.
//!
//! Death is seen without asking; this is for what lives and does not work. An attempt follows the one before after the
//! interval, so that one slow service is never asked twice at once; the intervals are spread by a tenth, so that servers
//! that were launched together are not asked together. It costs a timer and a connection, no thread.

use std::time::Duration;

use futures::future::select_all;
use kiln_model::{
    ServiceName,
    manifest::{Liveness, Service},
};
use rand::RngExt as _;
use tokio::time::{sleep, timeout};

use crate::readiness::{self, Watched};

/// Returns when a service has failed too often in a row, and says how. Never returns where no service is to be asked.
pub(crate) async fn wait(watched: &Watched) -> String {
    let checks = watched.manifest.services.iter().filter_map(|(name, service)| {
        let liveness = service.liveness.as_ref()?;
        Some(Box::pin(one(watched, name, service, liveness)))
    });
    let checks: Vec<_> = checks.collect();
    match checks.is_empty() {
        true => std::future::pending().await,
        false => select_all(checks).await.0,
    }
}

/// Whether any service is to be asked.
pub(crate) fn wanted(watched: &Watched) -> bool {
    watched.manifest.services.values().any(|service| service.liveness.is_some())
}

async fn one(watched: &Watched, name: &ServiceName, service: &Service, liveness: &Liveness) -> String {
    let mut failures = 0;
    while failures < liveness.failures {
        sleep(spread(liveness.interval)).await;
        let attempt = readiness::attempt(watched, service, &liveness.check, liveness.timeout);
        let good = timeout(liveness.timeout, attempt).await.unwrap_or(false);
        failures = if good { 0 } else { failures + 1 };
    }
    let check = readiness::unanswered(&liveness.check);
    let (times, limit) = (liveness.failures, kiln_model::duration::format(liveness.timeout));
    format!("service `{name}` does not work any more: {check} within {limit}, {times} times in a row")
}

fn spread(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.9..1.1))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::Ipv4Addr,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use kiln_model::{ImageManifest, manifest::ServiceCheck};
    use kiln_testkit::{FakeEngine, Manners};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    /// What an endpoint does when it is asked.
    #[derive(Clone, Copy)]
    enum Answer {
        Good,
        Bad,
        /// Nothing, and the connection stays open.
        Silence,
        /// Ten megabytes after these words.
        Flood(&'static [u8]),
    }

    const FLOOD: usize = 10 << 20;
    const FAILURES: u32 = 3;

    /// Watches a service whose endpoint answers so, in turn and from the beginning again. How often it was asked is counted.
    async fn watched(answers: &'static [Answer]) -> (Watched, Arc<AtomicUsize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("it has one").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answers[count.fetch_add(1, Ordering::Relaxed) % answers.len()];
                tokio::spawn(async move {
                    // Whoever asked may be gone before all is read and written.
                    let _ = stream.read(&mut [0; 512]).await;
                    let words: &[u8] = match answer {
                        Answer::Good => b"HTTP/1.1 200 OK\r\n\r\n",
                        Answer::Bad => b"HTTP/1.1 503 No\r\n\r\n",
                        Answer::Silence => return std::future::pending().await,
                        Answer::Flood(words) => words,
                    };
                    let _ = stream.write_all(words).await;
                    if matches!(answer, Answer::Flood(_)) {
                        let _ = stream.write_all(&vec![b'x'; FLOOD]).await;
                    }
                });
            }
        });
        let check = ServiceCheck::Http { port, path: "/".to_owned() };
        let (interval, timeout) = (Duration::from_millis(2), Duration::from_millis(200));
        let liveness = Some(Liveness { check, interval, timeout, failures: FAILURES });
        let service = Service { liveness, ..Service::new(vec!["/bin/web".to_owned()]) };
        let services = BTreeMap::from([("web".parse().expect("a name"), service)]);
        let watched = Watched {
            engine: Arc::new(FakeEngine::new(Manners::default())),
            server: "web-1".parse().expect("an id"),
            address: Some(Ipv4Addr::LOCALHOST),
            manifest: Arc::new(ImageManifest::new("web".parse().expect("a name"), services)),
            launched: Instant::now(),
        };
        (watched, asked)
    }

    /// Whether the server is still kept when its endpoint was asked so often.
    async fn kept(answers: &'static [Answer]) -> bool {
        let (watched, asked) = watched(answers).await;
        let enough = async {
            while asked.load(Ordering::Relaxed) < 40 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = wait(&watched) => false,
            () = enough => true,
        }
    }

    async fn given_up(answers: &'static [Answer]) -> (String, usize) {
        let (watched, asked) = watched(answers).await;
        let reason = timeout(Duration::from_secs(20), wait(&watched)).await.expect("it is given up");
        (reason, asked.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn host_an_endpoint_that_flaps_or_says_very_much_is_kept() {
        assert!(kept(&[Answer::Bad, Answer::Good]).await);
        assert!(kept(&[Answer::Bad, Answer::Silence, Answer::Good]).await);
        assert!(kept(&[Answer::Flood(b"HTTP/1.1 200 OK\r\n\r\n")]).await);
    }

    #[tokio::test]
    async fn host_an_endpoint_that_hangs_or_talks_without_end_is_given_up_after_its_failures() {
        for answers in [&[Answer::Silence][..], &[Answer::Bad], &[Answer::Flood(b"HTTP")], &[Answer::Flood(b"")]] {
            let (reason, asked) = given_up(answers).await;
            assert!(reason.contains("does not work any more") && reason.contains("3 times in a row"), "{reason}");
            assert_eq!(asked, FAILURES as usize);
        }
    }
}
