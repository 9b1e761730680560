//! The functions of templates, and how values are printed.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

use super::eval::Item;

const NAMES: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery",
    "eq", "ne", "lt", "le", "gt", "ge", "json", "split", "join", "title", "lower", "upper", "pad",
    "truncate",
];

/// Padding and widths beyond this are refused.
const MAX_WIDTH: usize = 1 << 16;

/// Whether there is a function of that name.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function. In a table's header those that change a value return it as it is.
pub(super) fn call<'a>(name: &str, arguments: &[Item<'a>], header: bool) -> Result<Item<'a>, String> {
    if header && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "pad" | "truncate")
    {
        return arguments.first().cloned().ok_or_else(|| wrong_count(name, 1, 0));
    }
    let owned = |value: Value| Ok(Cow::Owned(value));
    match name {
        "not" => owned((!truth(one(name, arguments)?.as_ref())).into()),
        "len" => owned(length(one(name, arguments)?.as_ref())?.into()),
        "index" => index(arguments),
        "slice" => slice(arguments).map(Cow::Owned),
        "print" => owned(print(arguments).into()),
        "println" => owned(println(arguments).into()),
        "printf" => owned(printf(arguments)?.into()),
        "html" => owned(escape_html(&print(arguments)).into()),
        "js" => owned(escape_js(&print(arguments)).into()),
        "urlquery" => owned(escape_query(&print(arguments)).into()),
        "eq" => equal(arguments).map(|equal| Cow::Owned(equal.into())),
        "ne" => {
            let [a, b] = two(name, arguments)?;
            owned((!same(&a, &b)?).into())
        }
        "lt" | "le" | "gt" | "ge" => {
            let [a, b] = two(name, arguments)?;
            let order = compare(&a, &b)?;
            owned(
                match name {
                    "lt" => order == Ordering::Less,
                    "le" => order != Ordering::Greater,
                    "gt" => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                }
                .into(),
            )
        }
        "json" => {
            let value = one(name, arguments)?;
            owned(serde_json::to_string(value.as_ref()).map_err(|error| error.to_string())?.into())
        }
        "split" => {
            let [text, separator] = two(name, arguments)?;
            let (text, separator) = (string(&text)?, string(&separator)?);
            let parts: Vec<Value> = match separator.is_empty() {
                true => text.chars().map(|c| c.to_string().into()).collect(),
                false => text.split(separator.as_str()).map(Into::into).collect(),
            };
            owned(parts.into())
        }
        "join" => {
            let [list, separator] = two(name, arguments)?;
            let separator = string(&separator)?;
            match list.as_ref() {
                Value::Array(list) => {
                    let parts: Result<Vec<_>, _> = list.iter().map(string).collect();
                    owned(parts?.join(&separator).into())
                }
                Value::Null => owned("".into()),
                other => Err(format!("wrong type for value; expected []string; got {}", type_name(other))),
            }
        }
        "title" => owned(title(&string(one(name, arguments)?.as_ref())?).into()),
        "lower" => owned(string(one(name, arguments)?.as_ref())?.to_lowercase().into()),
        "upper" => owned(string(one(name, arguments)?.as_ref())?.to_uppercase().into()),
        "pad" => pad(arguments).map(Cow::Owned),
        "truncate" => {
            let [text, length] = two(name, arguments)?;
            let length = usize::try_from(integer(&length)?).unwrap_or(0);
            owned(string(&text)?.chars().take(length).collect::<String>().into())
        }
        _ => Err(format!("function \"{name}\" not defined")),
    }
}

fn wrong_count(name: &str, want: usize, got: usize) -> String {
    format!("wrong number of args for {name}: want {want} got {got}")
}

fn one<'a>(name: &str, arguments: &[Item<'a>]) -> Result<Item<'a>, String> {
    match arguments {
        [one] => Ok(one.clone()),
        _ => Err(wrong_count(name, 1, arguments.len())),
    }
}

fn two<'a>(name: &str, arguments: &[Item<'a>]) -> Result<[Item<'a>; 2], String> {
    match arguments {
        [a, b] => Ok([a.clone(), b.clone()]),
        _ => Err(wrong_count(name, 2, arguments.len())),
    }
}

fn string(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("wrong type for value; expected string; got {}", type_name(other))),
    }
}

fn integer(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("expected integer; found {}", printed(value)))
}

/// The name of a value's type in Go.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Whether a value counts as true: neither false nor zero nor empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it: lists in brackets, maps sorted by key.
pub(super) fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        other => inner(other),
    }
}

fn inner(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(inner).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut items: Vec<_> = map.iter().collect();
            items.sort_by_key(|(key, _)| *key);
            let items: Vec<_> =
                items.into_iter().map(|(key, value)| format!("{key}:{}", inner(value))).collect();
            format!("map[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        Value::Null => Err("len of nil pointer".to_owned()),
        other => Err(format!("len of type {}", type_name(other))),
    }
}

fn index<'a>(arguments: &[Item<'a>]) -> Result<Item<'a>, String> {
    let [first, keys @ ..] = arguments else { return Err(wrong_count("index", 1, 0)) };
    let mut value = first.clone();
    for key in keys {
        let at = |length: usize| match usize::try_from(integer(key)?) {
            Ok(at) if at < length => Ok(at),
            _ => Err(format!("error calling index: index out of range: {}", printed(key))),
        };
        value = match value {
            Cow::Borrowed(Value::Object(map)) => {
                map.get(&string(key)?).map_or(Cow::Owned(Value::Null), Cow::Borrowed)
            }
            Cow::Owned(Value::Object(mut map)) => {
                Cow::Owned(map.shift_remove(&string(key)?).unwrap_or(Value::Null))
            }
            Cow::Borrowed(Value::Array(list)) => Cow::Borrowed(&list[at(list.len())?]),
            Cow::Owned(Value::Array(mut list)) => Cow::Owned(list.swap_remove(at(list.len())?)),
            other => match other.as_ref() {
                Value::Null => return Err("error calling index: index of untyped nil".to_owned()),
                Value::String(text) => Cow::Owned(text.as_bytes()[at(text.len())?].into()),
                other => {
                    return Err(format!(
                        "error calling index: can't index item of type {}",
                        type_name(other)
                    ));
                }
            },
        };
    }
    Ok(value)
}

fn slice(arguments: &[Item<'_>]) -> Result<Value, String> {
    let [value, bounds @ ..] = arguments else { return Err(wrong_count("slice", 1, 0)) };
    let length = length(value)?;
    let bounds: Vec<usize> = bounds
        .iter()
        .map(|bound| {
            let found = usize::try_from(integer(bound)?).ok().filter(|at| *at <= length);
            found.ok_or_else(|| format!("error calling slice: index out of range: {}", printed(bound)))
        })
        .collect::<Result<_, String>>()?;
    let (from, to) = match bounds.as_slice() {
        [] => (0, length),
        [from] => (*from, length),
        [from, to] => (*from, *to),
        _ => return Err("error calling slice: too many slice indexes".to_owned()),
    };
    if from > to {
        return Err(format!("error calling slice: invalid slice index: {from} > {to}"));
    }
    match value.as_ref() {
        Value::String(text) => Ok(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned().into()),
        Value::Array(list) => Ok(list[from..to].to_vec().into()),
        other => Err(format!("error calling slice: can't slice item of type {}", type_name(other))),
    }
}

/// Go's Sprint: a space only between two operands that are not strings.
fn print(arguments: &[Item<'_>]) -> String {
    let mut out = String::new();
    for (at, value) in arguments.iter().enumerate() {
        if at > 0 && !value.is_string() && !arguments[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&inner(value));
    }
    out
}

fn println(arguments: &[Item<'_>]) -> String {
    let parts: Vec<_> = arguments.iter().map(|value| inner(value)).collect();
    parts.join(" ") + "\n"
}

fn same(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Array(_) | Value::Object(_), other) | (other, Value::Array(_) | Value::Object(_)) => {
            match other.is_null() {
                true => Ok(false),
                false => Err("error calling eq: non-comparable type".to_owned()),
            }
        }
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Number(a), Value::Number(b)) => Ok(a == b || a.as_f64() == b.as_f64()),
        _ if std::mem::discriminant(a) == std::mem::discriminant(b) => Ok(a == b),
        _ => Err("error calling eq: incompatible types for comparison".to_owned()),
    }
}

fn equal(arguments: &[Item<'_>]) -> Result<bool, String> {
    let [first, others @ ..] = arguments else { return Err(wrong_count("eq", 1, 0)) };
    if others.is_empty() {
        return Err("error calling eq: missing argument for comparison".to_owned());
    }
    for other in others {
        if same(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Ok(x.cmp(&y)),
            _ => Ok(x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal)),
        },
        (Value::String(x), Value::String(y)) => Ok(x.cmp(y)),
        _ => Err("error calling lt: incompatible types for comparison".to_owned()),
    }
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        match start {
            true => out.extend(c.to_uppercase()),
            false => out.push(c),
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn pad(arguments: &[Item<'_>]) -> Result<Value, String> {
    let [text, before, after] = arguments else { return Err(wrong_count("pad", 3, arguments.len())) };
    let text = string(text)?;
    if text.is_empty() {
        return Ok(text.into());
    }
    let width = |value: &Value| match usize::try_from(integer(value)?) {
        Ok(width) if width <= MAX_WIDTH => Ok(width),
        _ => Err(format!("error calling pad: bad width {}", printed(value))),
    };
    Ok(format!("{}{text}{}", " ".repeat(width(before)?), " ".repeat(width(after)?)).into())
}

/// Go's Sprintf for the verbs that make sense on JSON: `%v %s %q %d %x %X %f %t %c %U %%`.
fn printf(arguments: &[Item<'_>]) -> Result<String, String> {
    let [format, values @ ..] = arguments else { return Err(wrong_count("printf", 1, 0)) };
    let (format, mut values) = (string(format)?, values.iter());
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zero, mut plus, mut sharp) = (false, false, false, false);
        while let Some(flag) = chars.next_if(|c| "-0+# ".contains(*c)) {
            match flag {
                '-' => left = true,
                '0' => zero = true,
                '+' => plus = true,
                '#' => sharp = true,
                _ => {}
            }
        }
        let width = number(&mut chars);
        let precision = chars.next_if_eq(&'.').map(|_| number(&mut chars).unwrap_or(0));
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            write!(out, "%!{verb}(MISSING)").expect("writing to a string");
            continue;
        };
        let text = verb_text(verb, value, precision, plus, sharp);
        let missing = width.unwrap_or(0).min(MAX_WIDTH).saturating_sub(text.chars().count());
        match (left, zero && value.is_number()) {
            (true, _) => out.push_str(&(text + &" ".repeat(missing))),
            (false, true) => {
                let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
                write!(out, "{sign}{}{digits}", "0".repeat(missing)).expect("writing to a string");
            }
            (false, false) => out.push_str(&(" ".repeat(missing) + &text)),
        }
    }
    let extra: Vec<_> = values.map(|value| format!("{}={}", type_name(value), inner(value))).collect();
    if !extra.is_empty() {
        write!(out, "%!(EXTRA {})", extra.join(", ")).expect("writing to a string");
    }
    Ok(out)
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(MAX_WIDTH).min(MAX_WIDTH))
}

fn verb_text(verb: char, value: &Value, precision: Option<usize>, plus: bool, sharp: bool) -> String {
    let bad = || format!("%!{verb}({}={})", type_name(value), inner(value));
    let sign = |text: String| if plus && !text.starts_with('-') { format!("+{text}") } else { text };
    match (verb, value) {
        ('v' | 's', Value::Array(list)) => {
            let parts: Vec<_> =
                list.iter().map(|item| verb_text(verb, item, precision, plus, sharp)).collect();
            format!("[{}]", parts.join(" "))
        }
        ('q', Value::Array(list)) => {
            let parts: Vec<_> =
                list.iter().map(|item| verb_text(verb, item, precision, plus, sharp)).collect();
            format!("[{}]", parts.join(" "))
        }
        ('s', Value::Number(_) | Value::Bool(_)) => bad(),
        ('s' | 'v', Value::String(text)) => match precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.clone(),
        },
        ('v', Value::Number(_)) => sign(inner(value)),
        ('v' | 's', _) => inner(value),
        ('q', Value::String(text)) => quoted(text),
        ('t', Value::Bool(value)) => value.to_string(),
        ('d', Value::Number(number)) if !number.is_f64() => sign(number.to_string()),
        ('x' | 'X', Value::Number(number)) if !number.is_f64() => {
            let number =
                number.as_i64().map_or_else(|| number.as_u64().map(i128::from), |n| Some(i128::from(n)));
            let number = number.unwrap_or_default();
            let prefix = if sharp { if verb == 'x' { "0x" } else { "0X" } } else { "" };
            let digits =
                if verb == 'x' { format!("{:x}", number.abs()) } else { format!("{:X}", number.abs()) };
            format!("{}{prefix}{digits}", if number < 0 { "-" } else { "" })
        }
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ('f' | 'F', Value::Number(number)) if number.is_f64() => {
            sign(format!("{:.*}", precision.unwrap_or(6), number.as_f64().unwrap_or_default()))
        }
        ('c', Value::Number(_)) => value
            .as_u64()
            .and_then(|code| char::from_u32(u32::try_from(code).ok()?))
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .to_string(),
        ('U', Value::Number(_)) if value.is_u64() => format!("U+{:04X}", value.as_u64().unwrap_or_default()),
        _ => bad(),
    }
}

/// A string in Go's quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_control() => match u32::from(c) {
                code @ ..0x80 => write!(out, "\\x{code:02x}").expect("writing to a string"),
                code => write!(out, "\\u{code:04x}").expect("writing to a string"),
            },
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('\'', "&#39;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
}

fn escape_js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => write!(out, "\\u{:04X}", u32::from(c)).expect("writing to a string"),
            c if c.is_control() => write!(out, "\\u{:04X}", u32::from(c)).expect("writing to a string"),
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => out.push(char::from(byte)),
            byte => write!(out, "%{byte:02X}").expect("writing to a string"),
        }
    }
    out
}
