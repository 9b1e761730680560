//! Sizes, durations and times, read and written as Docker does.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, TimeZone as _, Utc};

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// A number with `digits` significant digits and without trailing zeros, as C's `%.{digits}g`.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let rounded = format!("{value:.*e}", digits - 1);
    let exponent: i32 = rounded.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let digits = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= digits {
        let (mantissa, _) = rounded.split_once('e').unwrap_or((&rounded, ""));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

fn scaled(bytes: f64, base: f64, digits: usize, names: &[&str]) -> String {
    let (mut value, mut unit) = (bytes, 0);
    while value >= base && unit < names.len() - 1 {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), names[unit])
}

/// A size in powers of 1000 with three digits: `4.26MB`.
pub fn human_size(bytes: f64) -> String {
    scaled(bytes, 1000.0, 3, &DECIMAL)
}

/// A size in powers of 1000 with four digits: `1.235MB`.
pub fn human_size_4(bytes: f64) -> String {
    scaled(bytes, 1000.0, 4, &DECIMAL)
}

/// A size in powers of 1024 with four digits: `1.953GiB`.
pub fn binary_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, 4, &BINARY)
}

/// A size in bytes from `512`, `512m`, `1.5g`, `64KiB`; the units are powers of 1024.
pub fn parse_size(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|at| at + 1).ok_or_else(invalid)?;
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let value: f64 = match number.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
        true => number.parse().map_err(|_| invalid())?,
        false => return Err(invalid()),
    };
    if value < 0.0 {
        return Err(invalid());
    }
    let unit = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix);
    let power = match unit {
        "" if suffix != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    let bytes = value * 1024f64.powi(power);
    match bytes.is_finite() && bytes <= i64::MAX as f64 {
        true => Ok(bytes as i64),
        false => Err(invalid()),
    }
}

/// A number of CPUs in billionths of one, from `1.5`.
pub fn parse_cpus(text: &str) -> Result<i64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, whole) = whole.strip_prefix('-').map_or((false, whole), |rest| (true, rest));
    if (whole.is_empty() && fraction.is_empty())
        || !whole.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit())
    {
        return Err(invalid());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let fraction: i64 = format!("{:0<9}", fraction.trim_end_matches('0')).parse().map_err(|_| invalid())?;
    let nanos = whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(fraction)).ok_or_else(invalid)?;
    Ok(if negative { -nanos } else { nanos })
}

/// A duration in nanoseconds from Go's notation: `1h30m`, `1.5s`, `300ms`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration \"{text}\"");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let nanos = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration \"{text}\"")),
            unit => return Err(format!("time: unknown unit \"{unit}\" in duration \"{text}\"")),
        };
        total += number * nanos;
        rest = &rest[letters..];
    }
    match total <= i64::MAX as f64 {
        true => Ok(if negative { -(total as i64) } else { total as i64 }),
        false => Err(invalid()),
    }
}

/// A duration in words: `3 minutes`, `About an hour`.
pub fn human_duration(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds();
    let hours = (duration.num_milliseconds() as f64 / 3_600_000.0 + 0.5) as i64;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a time was: `3 minutes ago`.
pub fn ago(seconds: i64) -> String {
    let then = Utc.timestamp_opt(seconds, 0).single().unwrap_or_default();
    format!("{} ago", human_duration(Utc::now() - then))
}

/// A time in Go's default form, in the local zone: `2026-01-02 15:04:05 +0100 CET`.
pub fn go_time(seconds: i64) -> String {
    let time = Local.timestamp_opt(seconds, 0).single().unwrap_or_default();
    let offset = time.format("%z").to_string();
    let zone = zone_name(&offset);
    format!("{} {offset} {zone}", time.format("%Y-%m-%d %H:%M:%S"))
}

/// The zone's abbreviation; chrono knows only its offset, and Go prints that where it has no name.
fn zone_name(offset: &str) -> String {
    match offset {
        "+0000" => "UTC".to_owned(),
        _ => offset.trim_end_matches("00").to_owned(),
    }
}

/// A time in RFC 3339, in the local zone.
pub fn rfc3339(seconds: i64) -> String {
    let time = Local.timestamp_opt(seconds, 0).single().unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A time in RFC 3339 with nanoseconds, in the local zone.
pub fn local_nanos(nanos: i64) -> String {
    Local.timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// Seconds since 1970 of an RFC 3339 time.
pub fn timestamp(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp())
}

/// `--since` and `--until` as the API takes them, seconds and nanoseconds since 1970: from a
/// duration before now, a (partial) RFC 3339 time in the local zone, or a number, kept as it is.
pub fn api_time(text: &str) -> Result<String, String> {
    if let Ok(ago) = parse_duration(text) {
        let then = Utc::now() - TimeDelta::nanoseconds(ago);
        return Ok(format!("{}.{:09}", then.timestamp(), then.timestamp_subsec_nanos()));
    }
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Ok(text.to_owned());
    }
    let fixed = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
    let time = fixed
        .ok()
        .or_else(|| local_time(text))
        .ok_or_else(|| format!("failed to parse value as time or duration: \"{text}\""))?;
    Ok(format!("{}.{:09}", time.timestamp(), time.timestamp_subsec_nanos()))
}

fn local_time(text: &str) -> Option<DateTime<Utc>> {
    let (text, utc) = text.strip_suffix('Z').map_or((text, false), |text| (text, true));
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    let naive = formats
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDateTime::parse_from_str(&format!("{text}:00"), "%Y-%m-%dT%H:%M").ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    match utc {
        true => Some(naive.and_utc()),
        false => Some(Local.from_local_datetime(&naive).single()?.with_timezone(&Utc)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_read_as_docker_prints_them() {
        for (bytes, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (1234.0, "1.23kB"),
            (4_261_574.0, "4.26MB"),
            (123_456_789.0, "123MB"),
            (999_600.0, "1e+03kB"),
            (1_500_000_000.0, "1.5GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_size_4(1_234_567.0), "1.235MB");
        assert_eq!(binary_size(1024.0 * 1024.0 * 1.5), "1.5MiB");
        assert_eq!(binary_size(2_097_152_000.0), "1.953GiB");
        assert_eq!(significant(0.00001234, 3), "1.23e-05");
    }

    #[test]
    fn sizes_are_parsed() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("64KiB", 64 << 10),
            ("64 kb", 64 << 10),
            ("1T", 1 << 40),
            ("10b", 10),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size("1x"), Err("invalid suffix: 'x'".to_owned()));
        for text in ["", "m", "-1", "1.2.3", "x1", "1ib", "1  m", "inf", "99999999999999p"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(parse_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_cpus(".25"), Ok(250_000_000));
        assert_eq!(parse_cpus("2"), Ok(2_000_000_000));
        assert_eq!(parse_cpus("0.000000001"), Ok(1));
        assert!(parse_cpus("0.0000000001").is_err());
        assert!(parse_cpus("x").is_err() && parse_cpus("").is_err() && parse_cpus("1.x").is_err());
    }

    #[test]
    fn durations_are_parsed_and_said() {
        assert_eq!(parse_duration("1h30m"), Ok(5400 * 1_000_000_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_duration("-10ms"), Ok(-10_000_000));
        assert!(
            parse_duration("10").is_err() && parse_duration("").is_err() && parse_duration("5d").is_err()
        );
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(TimeDelta::seconds(seconds)), text);
        }
    }

    #[test]
    fn times_become_seconds() {
        assert_eq!(api_time("2013-01-02T13:23:37Z").unwrap(), "1357133017.000000000");
        assert_eq!(api_time("2013-01-02Z").unwrap(), "1357084800.000000000");
        assert_eq!(api_time("1357133017.5").unwrap(), "1357133017.5");
        assert!(api_time("yesterday").is_err());
        assert!(api_time("42m").unwrap().contains('.'));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,12}") {
            parse_size(&text).ok();
            parse_cpus(&text).ok();
            parse_duration(&text).ok();
            api_time(&text).ok();
        }

        #[test]
        fn three_digits_are_close(bytes in 0u64..(1 << 50)) {
            let text = human_size(bytes as f64);
            let at = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap();
            let power = DECIMAL.iter().position(|unit| *unit == &text[at..]).unwrap();
            let value = text[..at].parse::<f64>().unwrap() * 1000f64.powi(power as i32);
            prop_assert!((value - bytes as f64).abs() <= bytes as f64 * 0.005 + 0.5);
        }
    }
}
