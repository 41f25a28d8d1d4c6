//! Groups that follow what an endpoint tells, and endpoints that tell nothing of use.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    counted, desired, open, quick, reason,
    world::{World, release, running, until, up, wanted},
};

/// What an endpoint answers.
#[derive(Clone)]
enum Answer {
    Page(String),
    Raw(&'static str),
    /// A page of so many bytes.
    Long(usize),
    /// Nothing, for ever.
    Nothing,
}

/// A small HTTP server.
struct Endpoint {
    port: u16,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(Answer::Page("jobs 0\n".to_owned())));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (answers, questions) = (answer.clone(), asked.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, answers.clone(), questions.clone()));
            }
        });
        Self { port, answer, asked, task }
    }
    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
    fn page(&self, page: &str) {
        self.says(Answer::Page(page.to_owned()));
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Mutex<Answer>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    asked.lock().unwrap().push(String::from_utf8(head).unwrap());
    let answer = answer.lock().unwrap().clone();
    let text = match answer {
        Answer::Page(page) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len()),
        Answer::Raw(text) => text.to_owned(),
        Answer::Long(size) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\njobs 1\n");
            head + &"# it goes on and on\n".repeat(size / 20)
        }
        Answer::Nothing => return std::future::pending().await,
    };
    // Who has read enough leaves.
    stream.write_all(text.as_bytes()).await.ok();
}

fn follows(port: u16, metric: &str) -> String {
    let custom = format!("{{ url = \"http://127.0.0.1:{port}/metrics?of=mail\", {metric}per_server = 10 }}");
    format!("{{ min = 1, max = 12, target = {{ custom = {custom} }}, scale_in = {{ wait = \"1s\" }} }}")
}

#[tokio::test]
async fn host_a_group_follows_what_an_endpoint_tells_in_prometheus_text_or_as_a_bare_number() {
    let (world, endpoint) = (World::new(quick()), Endpoint::start().await);
    let control = open(&world).await;
    let count = follows(endpoint.port, "metric = \"jobs{queue=\\\"mail\\\"}\", ");
    endpoint.page("# TYPE jobs gauge\njobs{queue=\"mail\",host=\"a\"} 40\njobs{queue=\"mail\",host=\"b\"} 22\njobs{queue=\"fax\"} 900\n");
    up(&control, wanted(1, counted(&count))).await;
    until("seven serve", async || running(&world.engine, release(1)) == 7 && desired(&control).await == 7).await;
    let said = "62.0 jobs{queue=\"mail\"}, of which each server is to carry 10; ";
    assert!(reason(&control).await.starts_with(said), "{}", reason(&control).await);
    let asked = endpoint.asked.lock().unwrap()[0].to_lowercase();
    assert!(asked.starts_with("get /metrics?of=mail http/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: 127.0.0.1:{}\r\n", endpoint.port)), "{asked}");
    endpoint.page("31\n");
    up(&control, wanted(1, counted(&follows(endpoint.port, "")))).await;
    until("four are left", async || desired(&control).await == 4).await;
    assert_eq!(
        control.group_status(&super::world::web()).await.unwrap().scaling.unwrap().target,
        format!("10 of http://127.0.0.1:{}/metrics?of=mail", endpoint.port)
    );
}

#[tokio::test]
async fn host_an_endpoint_that_tells_nothing_of_use_changes_nothing_and_status_says_why() {
    let (world, endpoint) = (World::new(quick()), Endpoint::start().await);
    let control = open(&world).await;
    endpoint.page("jobs 60");
    up(&control, wanted(1, counted(&follows(endpoint.port, "metric = \"jobs\", ")))).await;
    until("six serve", async || desired(&control).await == 6).await;
    let old = jiff::Timestamp::now().as_millisecond() - 61_000;
    let stale = format!("jobs 1 {old}");
    let bad = [
        (Answer::Page("jobs NaN".to_owned()), "the value is not a number (NaN)"),
        (Answer::Page("jobs -4".to_owned()), "the value is negative"),
        (Answer::Page("jobs +Inf".to_owned()), "the value is infinite"),
        (Answer::Page("job 1".to_owned()), "the answer has no sample of `jobs`"),
        (Answer::Page("jobs one".to_owned()), "line 1 of the answer is not in Prometheus' text format"),
        (Answer::Page(stale), " s old)"),
        (Answer::Long(10 << 20), "is too long: less than 1 MiB is read"),
        (Answer::Raw("HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\njobs 1"), "answered status 500"),
        (
            Answer::Raw("HTTP/1.1 302 Go\r\nLocation: /a\r\nContent-Length: 6\r\n\r\njobs 1"),
            "redirects are not followed",
        ),
        (Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\njobs 1"), "the answer broke off or is not HTTP"),
        (Answer::Raw("SSH-2.0-x\r\n"), "the answer broke off or is not HTTP"),
        (Answer::Nothing, "did not answer within 2 s"),
    ];
    for (answer, why) in bad {
        endpoint.says(answer);
        let start = Instant::now();
        until(why, async || reason(&control).await.contains(why)).await;
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let said = reason(&control).await;
        assert!(said.starts_with("the load is not known (") && said.contains("so nothing changes; "), "{said}");
        assert_eq!(desired(&control).await, 6, "{why}");
    }
    endpoint.page("jobs 30");
    until("it is followed again", async || desired(&control).await == 4).await;
    drop(endpoint);
    until("nobody is there", async || reason(&control).await.contains("could not connect to 127.0.0.1:")).await;
    assert_eq!(desired(&control).await, 4);
}
