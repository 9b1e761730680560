//! What a user sees of `ctl`, and what the daemon sees, against a daemon that answers from a script.

mod fake;

use std::io::Write as _;
use std::process::{Output, Stdio};

use fake::{Answer, Fake, Request, json};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A daemon with one image; the container ends with `code`.
fn runner(code: i32, start: Answer) -> Fake {
    Fake::start(move |request| match request.line.split('?').next().unwrap_or_default() {
        "POST /containers/create" => json(201, r#"{"Id": "abc", "Warnings": ["careful"]}"#),
        "POST /containers/abc/attach" => Answer::Echo,
        "POST /containers/abc/wait" => {
            Answer::Late("ended", format!("{{\"StatusCode\": {code}}}").into_bytes())
        }
        "POST /containers/abc/start" => start.clone(),
        _ => json(404, r#"{"message": "page not found"}"#),
    })
}

fn started() -> Answer {
    Answer::Plain(204, "text/plain", Vec::new())
}

#[test]
fn run_passes_input_output_and_the_exit_code() {
    let fake = runner(7, started());
    let mut child = fake
        .command(&["run", "-i", "--rm", "--name", "x", "busybox", "cat", "-n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"input\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(stdout(&output), "hello input\n");
    assert_eq!(stderr(&output), "WARNING: careful\naside\n");
    let lines = fake.lines();
    assert_eq!(lines.len(), 4, "no request too many: {lines:?}");
    assert_eq!(lines[0], "POST /containers/create?name=x");
    assert_eq!(lines[3], "POST /containers/abc/start", "attached and waiting before the start");
    assert!(lines.contains(&"POST /containers/abc/wait?condition=removed".to_owned()), "{lines:?}");
    let body = fake.request("POST /containers/create").json();
    assert_eq!(body["Cmd"], serde_json::json!(["cat", "-n"]));
    assert_eq!(body["HostConfig"]["AutoRemove"], true);
}

#[test]
fn run_detached_prints_the_id() {
    let output = runner(0, started()).ctl(&["run", "-d", "busybox"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "abc\n"));
}

#[test]
fn a_start_that_fails_has_the_code_of_its_reason() {
    for (message, code) in [
        (r#"exec: \"x\": executable file not found in $PATH"#, 127),
        (r#"exec: \"/etc\": permission denied"#, 126),
        ("no cgroup", 125),
    ] {
        let fake = runner(0, json(400, &format!("{{\"message\": \"{message}\"}}")));
        let output = fake.ctl(&["run", "busybox", "x"]);
        assert_eq!(output.status.code(), Some(code), "{message}");
        let text = stderr(&output);
        assert!(text.contains("ctl: Error response from daemon: "), "{text}");
        assert!(text.ends_with("Run 'ctl run --help' for more information\n"), "{text}");
    }
}

#[test]
fn a_missing_image_is_pulled_and_said() {
    let pulled = std::sync::atomic::AtomicBool::new(false);
    let fake = Fake::start(move |request: &Request| {
        use std::sync::atomic::Ordering::SeqCst;
        match request.line.split('?').next().unwrap_or_default() {
            "POST /images/create" => {
                pulled.store(true, SeqCst);
                json(
                    200,
                    "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n{\"status\":\"Status: done\"}\r\n",
                )
            }
            "POST /containers/create" if pulled.load(SeqCst) => json(201, r#"{"Id": "abc", "Warnings": []}"#),
            "POST /containers/create" => json(404, r#"{"message": "No such image: busybox:latest"}"#),
            _ => json(500, r#"{"message": "unexpected"}"#),
        }
    });
    let output = fake.ctl(&["create", "busybox"]);
    assert_eq!(stdout(&output), "abc\n");
    let expected =
        "Unable to find image 'busybox:latest' locally\nlatest: Pulling from library/busybox\nStatus: done\n";
    assert_eq!(stderr(&output), expected);
    assert!(
        fake.lines()
            .contains(&"POST /images/create?fromImage=docker.io/library/busybox&tag=latest".to_owned())
    );

    let never = Fake::start(|_| json(404, r#"{"message": "No such image: busybox:latest"}"#));
    let output = never.ctl(&["run", "--pull", "never", "busybox"]);
    assert_eq!((output.status.code(), never.lines().len()), (Some(125), 1));
}

#[test]
fn an_error_in_the_progress_is_the_commands() {
    let fake = Fake::start(|_| {
        json(
            200,
            "{\"status\":\"Pulling\"}\n{\"errorDetail\":{\"message\":\"digest mismatch\"},\"error\":\"digest mismatch\"}\n",
        )
    });
    let output = fake.ctl(&["pull", "-q", "busybox"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert_eq!(stderr(&output), "digest mismatch\n");
}

#[test]
fn exec_returns_the_commands_code() {
    let fake = Fake::start(|request| match request.line.as_str() {
        "POST /containers/c/exec" => json(201, r#"{"Id": "e"}"#),
        "POST /exec/e/start" => Answer::Echo,
        "GET /exec/e/json" => json(200, r#"{"ExitCode": 9, "Running": false}"#),
        _ => json(404, r#"{"message": "page not found"}"#),
    });
    let output = fake.ctl(&["exec", "-e", "A=1", "c", "ls", "-l"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(9), "hello "));
    let body = fake.request("POST /containers/c/exec").json();
    assert_eq!((&body["Cmd"], &body["Env"]), (&serde_json::json!(["ls", "-l"]), &serde_json::json!(["A=1"])));
}

#[test]
fn lists_are_tables_templates_or_json() {
    let fake = Fake::start(|request| {
        assert!(request.line.starts_with("GET /containers/json"), "{}", request.line);
        json(
            200,
            r#"[{"Id": "0123456789abcdef", "Names": ["/web"], "Image": "nginx", "Command": "nginx -g 'daemon off;'",
                "Created": 1, "Ports": [], "Labels": {"a": "b"}, "State": "some-new-state", "Status": "Up 2 hours"}]"#,
        )
    });
    let table = stdout(&fake.ctl(&["ps"]));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
        "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    );
    assert!(lines[1].starts_with("0123456789ab   nginx     \"nginx -g 'daemon of…\""), "{table}");
    assert!(lines[1].ends_with("Up 2 hours             web"), "{table}");
    assert_eq!(stdout(&fake.ctl(&["ps", "-q", "--no-trunc"])), "0123456789abcdef\n");
    assert_eq!(stdout(&fake.ctl(&["container", "ls", "--format", "{{.Names}} {{.Label \"a\"}}"])), "web b\n");
    let row: serde_json::Value =
        serde_json::from_slice(&fake.ctl(&["ps", "--format", "json"]).stdout).unwrap();
    assert_eq!(row["State"], "some-new-state");
    assert_eq!(fake.ctl(&["ps", "--format", "{{.Nope}}"]).status.code(), Some(1));
    let output = fake.ctl(&["ps", "--format", "{{"]);
    assert_eq!(stderr(&output), "failed to parse template: template: :1: unclosed action\n");
    fake.ctl(&["ps", "-a", "-f", "name=x", "-f", "name=y"]);
    let sent = "GET /containers/json?all=1&filters=%7B%22name%22:%5B%22x%22,%22y%22%5D%7D";
    assert!(fake.lines().contains(&sent.to_owned()), "{:?}", fake.lines());
}

#[test]
fn several_names_are_all_done_and_failures_told() {
    let fake = Fake::start(|request| match request.line.as_str() {
        "POST /containers/good/stop?t=3" => started(),
        _ => json(404, r#"{"message": "No such container: bad"}"#),
    });
    let output = fake.ctl(&["stop", "-t", "3", "bad", "good"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), "good\n"));
    assert_eq!(stderr(&output), "Error response from daemon: No such container: bad\n");
}

#[test]
fn inspect_prints_what_was_found_and_names_what_was_not() {
    let fake = Fake::start(|request| match request.line.as_str() {
        "GET /containers/a/json" => json(200, r#"{"Id": "1", "State": {"Running": true}}"#),
        _ => json(404, r#"{"message": "no such"}"#),
    });
    let output = fake.ctl(&["inspect", "a", "b"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "[\n    {\n        \"Id\": \"1\",\n        \"State\": {\n            \"Running\": true\n        }\n    }\n]\n";
    assert_eq!(stdout(&output), expected);
    assert_eq!(stderr(&output), "Error: No such object: b\n");
    assert_eq!(stdout(&fake.ctl(&["inspect", "-f", "{{.State.Running}}", "a"])), "true\n");
}

#[test]
fn logs_keep_the_streams_apart() {
    let fake = Fake::start(|_| {
        let body = b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n".to_vec();
        Answer::Plain(200, "application/vnd.docker.multiplexed-stream", body)
    });
    let output = fake.ctl(&["logs", "--tail", "2", "c"]);
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), ("out\n", "err\n"));
    assert_eq!(fake.lines(), ["GET /containers/c/logs?stdout=1&stderr=1&tail=2"]);
}

#[test]
fn saving_is_whole_or_not_at_all() {
    let fake = Fake::start(|request| match request.line.as_str() {
        "GET /images/get?names=a&names=b" => Answer::Plain(200, "application/x-tar", b"tar".to_vec()),
        _ => json(404, r#"{"message": "No such image: x"}"#),
    });
    let path = fake.directory().join("out.tar");
    let text = path.display().to_string();
    assert!(fake.ctl(&["save", "-o", &text, "a", "b"]).status.success());
    assert_eq!(std::fs::read(&path).unwrap(), b"tar");
    assert_eq!(fake.ctl(&["save", "-o", &text, "x"]).status.code(), Some(1));
    assert_eq!(std::fs::read(&path).unwrap(), b"tar", "a failure leaves the file as it was");
    assert_eq!(fake.ctl(&["save", "a", "b"]).stdout, b"tar");
}

#[test]
fn loading_sends_the_archive() {
    let fake = Fake::start(|request| match request.line.as_str() {
        "HEAD /_ping" => json(200, ""),
        line if line.starts_with("POST /images/load") => json(200, "{\"stream\":\"Loaded image: a:1\\n\"}\n"),
        _ => json(404, r#"{"message": "page not found"}"#),
    });
    let path = fake.directory().join("in.tar");
    std::fs::write(&path, b"archive").unwrap();
    let output = fake.ctl(&["load", "-i", &path.display().to_string()]);
    assert_eq!(stdout(&output), "Loaded image: a:1\n", "{}", stderr(&output));
    assert_eq!(fake.request("POST /images/load").body, b"archive");
}

#[test]
fn a_refusal_is_heard_although_the_upload_breaks() {
    let fake = Fake::start(|_| json(200, ""));
    let path = fake.directory().join("in.tar");
    std::fs::write(&path, vec![0; 4 << 20]).unwrap();
    for _ in 0..20 {
        let output = fake.ctl(&["import", &path.display().to_string()]);
        assert_eq!(stderr(&output), "Error response from daemon: not here\n");
    }
}

#[test]
fn credentials_are_kept_and_sent_to_their_registry_only() {
    let fake = Fake::start(|request| match request.line.split('?').next().unwrap_or_default() {
        "POST /auth" => json(200, r#"{"Status": "Login Succeeded"}"#),
        "POST /images/create" => json(200, "{\"status\":\"done\"}\n"),
        _ => json(404, r#"{"message": "page not found"}"#),
    });
    let mut child = fake
        .command(&["login", "-u", "me", "--password-stdin", "localhost:5000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), "Login Succeeded\n");
    assert_eq!(fake.request("POST /auth").json()["password"], "secret");
    assert!(fake.ctl(&["pull", "localhost:5000/x"]).status.success());
    assert!(fake.ctl(&["pull", "elsewhere.example/x"]).status.success());
    let sent = fake
        .request("POST /images/create?fromImage=localhost:5000/x")
        .headers
        .contains_key("x-registry-auth");
    let leaked =
        fake.request("POST /images/create?fromImage=elsewhere").headers.contains_key("x-registry-auth");
    assert_eq!((sent, leaked), (true, false));
    assert_eq!(
        stdout(&fake.ctl(&["logout", "localhost:5000"])),
        "Removing login credentials for localhost:5000\n"
    );
    assert_eq!(stdout(&fake.ctl(&["logout", "localhost:5000"])), "Not logged in to localhost:5000\n");
}

#[test]
fn mistakes_in_the_arguments_are_dockers() {
    let fake = Fake::start(|_| json(500, "{}"));
    for (arguments, code, text) in [
        (
            &["run", "--nope", "x"][..],
            125,
            "unknown flag: --nope\n\nUsage:  ctl run [OPTIONS] IMAGE [COMMAND] [ARG...]\n",
        ),
        (&["run", "-Z", "x"], 125, "unknown shorthand flag: 'Z' in -Z\n"),
        (&["run"], 1, "ctl: 'ctl run' requires at least 1 argument\n"),
        (&["rename", "x"], 1, "ctl: 'ctl rename' requires 2 arguments\n"),
        (&["ps", "x"], 1, "ctl: 'ctl ps' accepts no arguments\n"),
        (
            &["run", "-m", "1x", "x"],
            125,
            "invalid argument \"1x\" for \"-m, --memory\" flag: invalid suffix: 'x'\n",
        ),
        (&["run", "--name"], 125, "flag needs an argument: --name\n"),
        (&["nope"], 1, "ctl: unknown command: ctl nope\n\nRun 'ctl --help' for more information\n"),
        (&["container", "nope"], 1, "ctl: unknown command: ctl container nope\n"),
        (&["-H", "tcp://1.2.3.4:1", "ps"], 1, "unsupported protocol tcp://"),
        (&["-H", "unix:///nowhere", "ps"], 1, "Cannot connect to the ctl daemon at unix:///nowhere."),
        (&["inspect", "-f", "{{", "x"], 64, "template parsing error: template: :1: unclosed action\n"),
    ] {
        let output = fake.ctl(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with(text), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(fake.lines(), [] as [String; 0], "nothing was asked of the daemon");
}

#[test]
fn every_command_has_help_and_completion() {
    let fake = Fake::start(|_| json(500, "{}"));
    let help = stdout(&fake.ctl(&["--help"]));
    for command in ["run", "ps", "pull", "save", "container", "system"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
        assert!(fake.ctl(&[command, "--help"]).status.success(), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&fake.ctl(&["completion", shell]));
        assert!(script.contains("no-trunc") && script.contains("entrypoint"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error_message() {
    let fake = Fake::start(|_| json(200, "[]"));
    let mut child = fake.command(&["ps"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
}
