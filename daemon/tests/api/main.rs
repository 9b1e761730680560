//! The API over a real socket, a real store and an engine without containers; needs no privileges.

mod client;

use std::time::Duration;

use client::{Server, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn ping_tells_the_versions_on_get_and_head() {
    let server = Server::start().await;
    let answer = server.request("GET", "/_ping", &[], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    for (name, value) in [
        ("api-version", "1.53"),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        ("builder-version", "1"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let head = server.request("HEAD", "/v1.40/_ping", &[], "").await;
    assert_eq!((head.status, head.header("api-version")), (200, Some("1.53")));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_out_of_range_are_refused_in_dockers_words() {
    let server = Server::start().await;
    let old = server.request("GET", "/v1.30/info", &[], "").await;
    assert_eq!(old.status, 400);
    assert_eq!(
        old.message(),
        "client version 1.30 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version"
    );
    let new = server.request("GET", "/v1.99/info", &[], "").await;
    assert_eq!(new.status, 400);
    assert_eq!(new.message(), "client version 1.99 is too new. Maximum supported API version is 1.53");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let server = Server::start().await;
    for (method, path, message) in [
        ("GET", "/nope", "page not found"),
        ("PUT", "/containers/json", "page not found"),
        ("GET", "/images/x/nope", "page not found"),
        ("GET", "/containers/x/json", "No such container: x"),
        ("POST", "/containers/x/start", "No such container: x"),
        ("POST", "/containers/x/attach", "No such container: x"),
        ("GET", "/containers/x/logs?stdout=1", "No such container: x"),
        ("DELETE", "/containers/x", "No such container: x"),
        ("GET", "/exec/x/json", "No such exec instance: x"),
        ("GET", "/images/a/b/json", "No such image: a/b:latest"),
        ("GET", "/images/x/history", "No such image: x:latest"),
        ("DELETE", "/images/x", "No such image: x:latest"),
        ("GET", "/networks/x", "network x not found"),
        ("GET", "/volumes/x", "get x: no such volume"),
    ] {
        let answer = server.request(method, path, &[], "").await;
        assert_eq!((answer.status, answer.message().as_str()), (404, message), "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_says_so() {
    let server = Server::start().await;
    for (method, path, what) in [
        ("POST", "/networks/create", "creating networks"),
        ("POST", "/v1.45/build", "build"),
        ("GET", "/plugins", "plugins"),
        ("POST", "/swarm/init", "swarm mode"),
        ("GET", "/services/x/logs", "swarm mode"),
        ("GET", "/containers/x/attach/ws", "attaching over a WebSocket"),
    ] {
        let answer = server.request(method, path, &[], "").await;
        assert_eq!(
            (answer.status, answer.message()),
            (501, format!("{what} is not supported yet")),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_before_anything_happens() {
    let server = Server::start().await;
    let json = [("Content-Type", "application/json")];
    let create = |body: &'static str| server.request("POST", "/containers/create", &json, body);
    assert!(create("{").await.is_bad("invalid JSON: "));
    assert!(create("").await.is_bad("invalid JSON: got EOF"));
    assert!(create("[]").await.is_bad("invalid JSON: "));
    assert!(create(r#"{"Image": 1}"#).await.is_bad("invalid JSON: "));
    let text = server.request("POST", "/containers/create", &[("Content-Type", "text/plain")], "{}").await;
    assert!(text.is_bad("unsupported Content-Type header (text/plain)"));
    let missing = create(r#"{"Image": "nope", "Cmd": "true"}"#).await;
    assert_eq!((missing.status, missing.message().as_str()), (404, "No such image: nope:latest"));
    for path in [
        "/containers/json?limit=x",
        "/containers/json?filters=x",
        "/containers/json?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D",
        "/images/json?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D",
        "/images/json?filters=%7B%22dangling%22%3A%5B%22maybe%22%5D%7D",
        "/containers/x/logs",
        "/events?since=soon",
        "/system/df?type=nope",
    ] {
        let answer = server.request("GET", path, &[], "").await;
        assert!(answer.status == 400 && !answer.message().is_empty(), "{path}: {answer:?}");
    }
    let condition = server.request("POST", "/containers/x/wait?condition=x", &[], "").await;
    assert!(condition.is_bad("invalid condition: \"x\""));
    let huge = "x".repeat(5 << 20);
    let answer = server.request("POST", "/containers/create", &json, &huge).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_daemon_tells_the_truth() {
    let server = Server::start().await;
    let get = async |path: &str| {
        let answer = server.request("GET", path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        serde_json::from_str::<serde_json::Value>(&answer.body).expect("a JSON body")
    };
    assert_eq!(get("/containers/json?all=1").await, serde_json::json!([]));
    assert_eq!(get("/images/json").await, serde_json::json!([]));
    assert_eq!(get("/volumes").await["Volumes"], serde_json::json!([]));
    let networks = get("/networks").await;
    let names: Vec<&str> =
        networks.as_array().expect("a list").iter().filter_map(|network| network["Name"].as_str()).collect();
    assert_eq!(names, ["host", "none"]);
    assert_eq!(get("/networks/none").await["Driver"], "null");
    let version = get("/version").await;
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&"1.53".into(), &"1.40".into()));
    let info = get("/info").await;
    assert_eq!((&info["Containers"], &info["Images"]), (&0.into(), &0.into()));
    assert!(info["MemTotal"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_ends_its_stream() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(server.open("GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await);
    }
    for stream in &mut streams {
        let head = client::read_head(stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    assert!(server.connections() >= 20);
    drop(streams);
    eventually("the connections end", || server.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_waits_for_is_stopped() {
    let server = Server::start().await;
    // A registry that accepts and never answers.
    let registry = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = registry.local_addr().expect("an address").port();
    let stream = server
        .open(&format!(
            "POST /images/create?fromImage=127.0.0.1:{port}/x&tag=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let (mut asked, _) = registry.accept().await.expect("the pull asks");
    drop(stream);
    let ended = async {
        use tokio::io::AsyncReadExt;
        let mut buffer = [0; 1024];
        while asked.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the pull was stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_idle_connections_and_removes_the_socket() {
    let mut server = Server::start().await;
    let idle = server.open("").await;
    server.shut_down().await;
    assert!(!server.socket().exists());
    drop(idle);
}
