//! Templates as people write them, and as they should not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rendered(template: &str, data: &Value) -> String {
    match Template::parse(template).and_then(|template| template.render(data)) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

#[test]
fn fields_functions_and_pipelines() {
    let data = json!({
        "Name": "web", "Pid": 42, "Ratio": 0.5, "On": true, "Nothing": null,
        "Cmd": ["sh", "-c", "true"],
        "Labels": {"b": "2", "a.b/c": "1"},
        "Net": {"Ports": {"80/tcp": [{"HostPort": "8080"}]}},
    });
    for (template, expected) in [
        ("plain", "plain"),
        ("{{.Name}}:{{.Pid}}", "web:42"),
        ("{{ .Cmd }} {{.Labels}} {{.Nothing}}", "[sh -c true] map[a.b/c:1 b:2] <no value>"),
        ("{{json .Cmd}}", "[\"sh\",\"-c\",\"true\"]"),
        ("{{.Cmd | json}}", "[\"sh\",\"-c\",\"true\"]"),
        ("{{index .Labels \"a.b/c\"}}", "1"),
        ("{{index .Cmd 1}}", "-c"),
        ("{{(index (index .Net.Ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{range .Cmd}}<{{.}}>{{end}}", "<sh><-c><true>"),
        ("{{range $i, $x := .Cmd}}{{if $i}},{{end}}{{$x}}{{end}}", "sh,-c,true"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a.b/c=1;b=2;"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range .Cmd}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}}{{end}}", "shtrue"),
        ("{{range .Cmd}}{{.}}{{break}}{{end}}", "sh"),
        ("{{with .Net}}{{len .Ports}}{{end}}", "1"),
        ("{{with .Nothing}}x{{else with .Name}}{{.}}{{else}}y{{end}}", "web"),
        ("{{if .Nothing}}a{{else if .On}}b{{else}}c{{end}}", "b"),
        ("{{if and .On (gt .Pid 41) (not .Nothing)}}yes{{end}}", "yes"),
        ("{{if or .Nothing (eq .Name \"a\" \"web\")}}yes{{end}}", "yes"),
        ("{{ne .Pid 1}} {{lt 1 2}} {{le 2 2}} {{ge 1 2}}", "true true true false"),
        ("{{printf \"%s %d %q %v %x\" .Name .Pid .Name .Cmd .Pid}}", "web 42 \"web\" [sh -c true] 2a"),
        ("{{printf \"%-5s|%5s|%05d\" .Name .Name .Pid}}", "web  |  web|00042"),
        ("{{printf \"%.2f %t %% %s\" .Ratio .On 1}}", "0.50 true % %!s(int=1)"),
        ("{{join .Cmd \" \"}}", "sh -c true"),
        ("{{split \"a,b\" \",\"}}", "[a b]"),
        ("{{upper .Name}}{{lower \"AB\"}}{{title \"a b\"}}", "WEBabA B"),
        ("[{{pad .Name 1 2}}] {{truncate .Name 2}}", "[ web  ] we"),
        ("{{println .Name .Pid}}", "web 42\n"),
        ("{{print 1 2 \"x\" 3}}", "1 2x3"),
        ("{{$x := .Name}}{{$x}}{{$x = \"y\"}}{{$x}}", "weby"),
        ("{{range .Cmd}}{{$.Name}}{{end}}", "webwebweb"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* a comment */}}x{{- /* and */ -}} y", "xy"),
        ("{{\"\\t\\\"\"}}{{`raw\\n`}}", "\t\"raw\\n"),
        ("{{slice .Name 1 2}}{{slice .Cmd 1}}", "e[-c true]"),
        ("{{html \"<a&b>\"}}{{urlquery \"a b\"}}", "&lt;a&amp;b&gt;a+b"),
    ] {
        assert_eq!(rendered(template, &data), expected, "{template}");
    }
}

#[test]
fn mistakes_are_named() {
    let data = json!({"Name": "web", "Nothing": null});
    for (template, expected) in [
        ("{{.Nope}}", "template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\""),
        (
            "x\n{{.Name.Sub}}",
            "template: :2:2: executing \"\" at <.Name.Sub>: can't evaluate field Sub in type string",
        ),
        (
            "{{.Nothing.Sub}}",
            "template: :1:2: executing \"\" at <.Nothing.Sub>: nil data; no entry for key \"Sub\"",
        ),
        ("{{foo .}}", "template: :1: function \"foo\" not defined"),
        ("{{.Name", "template: :1: unclosed action"),
        ("{{if .Name}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{$x}}", "template: :1: undefined variable \"$x\""),
        ("{{}}", "template: :1: missing value for command"),
        ("{{template \"x\"}}", "template: :1: {{template}} is not supported in a format"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        (
            "{{index .Name 9}}",
            "template: :1:2: executing \"\" at <index>: error calling index: index out of range: 9",
        ),
    ] {
        assert_eq!(rendered(template, &data), expected, "{template}");
    }
}

#[test]
fn labels_and_headers() {
    let row = json!({"ID": "abc"});
    let labels = json!({"com.example.my-key": "v"});
    let template = Template::parse("{{.ID}} {{.Label \"com.example.my-key\"}} {{upper .ID}}").unwrap();
    let data = Data { root: &row, labels: Some(&labels), header: false };
    assert_eq!(template.render_data(data).unwrap(), "abc v ABC");
    let names = json!({"ID": "CONTAINER id"});
    let header = Data { root: &names, labels: Some(&labels), header: true };
    assert_eq!(template.render_data(header).unwrap(), "CONTAINER id my key CONTAINER id");
}

#[test]
fn nesting_has_a_bound() {
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(rendered(&deep, &Value::Null).contains("nested too deeply"));
    let deep = "{{if 1}}".repeat(5000);
    assert!(rendered(&deep, &Value::Null).contains("nested too deeply"));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        rendered(&text, &json!({"A": [1, {"B": "c"}]}));
    }

    #[test]
    fn any_action_is_executed_or_refused(
        words in proptest::collection::vec(
            prop_oneof![
                Just("{{"), Just("}}"), Just(" "), Just("."), Just(".A"), Just("$"), Just("$x"), Just(":="),
                Just("|"), Just("("), Just(")"), Just("if"), Just("range"), Just("with"), Just("else"),
                Just("end"), Just("index"), Just("printf"), Just("\"%v\""), Just("0"), Just("1"), Just("json"),
                Just("-"), Just("eq"), Just(","), Just("slice"), Just("len"), Just("join"),
            ],
            0..25,
        )
    ) {
        rendered(&words.concat(), &json!({"A": [1, {"B": "c"}], "x": "y"}));
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{}]{0,40}") {
        prop_assert_eq!(rendered(&text, &Value::Null), text);
    }

    #[test]
    fn quoted_strings_come_back(text in "\\PC{0,20}") {
        let template = format!("{{{{json {}}}}}", serde_json::to_string(&text).unwrap());
        // JSON escapes a few characters in a way that templates do not know.
        prop_assume!(!template.contains("\\u") && !template.contains("\\/"));
        prop_assert_eq!(rendered(&template, &Value::Null), serde_json::to_string(&text).unwrap());
    }
}
