//! Shell patterns as Go's `path.Match` reads them: `*` and `?` do not match a slash.

/// A pattern that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// `None` where it is malformed.
    pub fn new(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            pieces.push(match c {
                '*' => Piece::Many,
                '?' => Piece::One,
                '\\' => Piece::Literal(rest.next()?),
                '[' => {
                    let negated = rest.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let mut member = || match rest.next()? {
                            '\\' => rest.next(),
                            '-' => None,
                            c => Some(c),
                        };
                        let low = member()?;
                        if low == ']' && !ranges.is_empty() {
                            break;
                        }
                        if low == ']' {
                            return None;
                        }
                        let high = if rest.next_if_eq(&'-').is_some() {
                            match rest.next()? {
                                '\\' => rest.next()?,
                                ']' | '-' => return None,
                                c => c,
                            }
                        } else {
                            low
                        };
                        ranges.push((low, high));
                    }
                    Piece::Class { negated, ranges }
                }
                c => Piece::Literal(c),
            });
        }
        Some(Self(pieces))
    }

    /// Whether the whole text matches. Takes time in proportion to both lengths multiplied.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // reachable[i]: the pieces so far can match the first i characters.
        let mut reachable = vec![false; text.len() + 1];
        reachable[0] = true;
        for piece in &self.0 {
            let mut next = vec![false; text.len() + 1];
            for i in 0..=text.len() {
                match piece {
                    Piece::Many => {
                        next[i] = reachable[i] || (i > 0 && next[i - 1] && text[i - 1] != '/');
                    }
                    piece => next[i] = i > 0 && reachable[i - 1] && piece.takes(text[i - 1]),
                }
            }
            reachable = next;
        }
        reachable[text.len()]
    }
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == c,
            Self::One => c != '/',
            Self::Many => false,
            Self::Class { negated, ranges } => {
                c != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*:latest", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?sybox", "busybox", true),
            ("[a-c]usy[^a-c]ox", "busyxox", true),
            ("[a-c]usy[^a-c]ox", "busybox", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(text), expected, "{pattern} {text}");
        }
        for wrong in ["[", "[]a]", "[a", "a\\", "[a-]"] {
            assert_eq!(Pattern::new(wrong), None, "{wrong}");
        }
    }
}
