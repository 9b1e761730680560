//! One line of a json-file log, byte for byte as Docker writes it.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Appends an entry. `newline` says whether the text was a whole line.
pub fn append(out: &mut Vec<u8>, text: &[u8], newline: bool, stream: &str, time: SystemTime) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    if newline {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    rfc3339_nano(out, time);
    out.extend_from_slice(b"\"}\n");
}

/// Docker's escapes: control characters, quotes, HTML's three, the two line separators; bytes that
/// are not UTF-8 become U+FFFD each.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut from = 0;
        let mut at = 0;
        while at < valid.len() {
            let byte = valid[at];
            let plain = byte >= b' ' && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
            if plain {
                at += 1;
                continue;
            }
            let separator = byte == 0xe2 && matches!(valid[at..], [_, 0x80, 0xa8 | 0xa9, ..]);
            if byte == 0xe2 && !separator {
                at += 3;
                continue;
            }
            out.extend_from_slice(&valid[from..at]);
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                0xe2 => out.extend_from_slice(if valid[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" }),
                _ => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
            at += if separator { 3 } else { 1 };
            from = at;
        }
        out.extend_from_slice(&valid[from..]);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Go's `RFC3339Nano` in UTC: the fraction without trailing zeros, none at all where it is zero.
fn rfc3339_nano(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
        .expect("a vector takes everything");
    if since.subsec_nanos() > 0 {
        write!(out, ".{:09}", since.subsec_nanos()).expect("a vector takes everything");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

/// The Gregorian date of a number of days since 1970-01-01. Years begin in March here, so that the
/// leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let shifted = days + 719_468;
    let era = shifted / DAYS_OF_400_YEARS;
    let of_era = shifted % DAYS_OF_400_YEARS;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &[u8]) -> String {
        let mut out = vec![];
        append(&mut out, text, true, "stdout", UNIX_EPOCH);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_as_docker_does() {
        assert_eq!(
            entry(b"a\"\\\t\r\x01<>&\x7f"),
            "{\"log\":\"a\\\"\\\\\\u0009\\r\\u0001\\u003c\\u003e\\u0026\x7f\\n\",\"stream\":\"stdout\",\
             \"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        assert!(entry("€ \u{2028}\u{2029} â".as_bytes()).contains("€ \\u2028\\u2029 â\\n"));
        assert!(entry(b"\xff\xe2\x80x\xe2").contains("\"\\ufffd\\ufffd\\ufffdx\\ufffd\\n\""));
    }

    #[test]
    fn every_text_is_valid_json() {
        for byte in 0..=255 {
            let text = [byte, byte, b'x'];
            let value: serde_json::Value = serde_json::from_str(&entry(&text)).unwrap();
            assert_eq!(value["log"], format!("{}\n", String::from_utf8_lossy(&text)));
        }
    }

    #[test]
    fn times_as_go_writes_them() {
        let text = |nanos: u64| {
            let mut out = vec![];
            rfc3339_nano(&mut out, UNIX_EPOCH + Duration::from_nanos(nanos));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(1_709_210_096_123_456_000), "2024-02-29T12:34:56.123456Z");
        assert_eq!(text(951_782_399_000_000_001), "2000-02-28T23:59:59.000000001Z");
        assert_eq!(text(4_102_444_800_000_000_000), "2100-01-01T00:00:00Z");
        assert_eq!(text(4_107_542_400_100_000_000), "2100-03-01T00:00:00.1Z");
    }
}
