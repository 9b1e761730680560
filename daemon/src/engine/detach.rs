//! The key sequence that leaves a terminal without ending what runs in it.

use super::Error;

/// Watches input for the detach sequence. Keys that turn out not to belong to it are forwarded.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`; `None` or an empty text is that default.
    pub fn parse(text: Option<&str>) -> Result<Self, Error> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or("ctrl-p,ctrl-q");
        let sequence = text
            .split(',')
            .map(|key| match key.strip_prefix("ctrl-") {
                None => match *key.as_bytes() {
                    [byte] => Ok(byte),
                    _ => Err(()),
                },
                Some(rest) => match *rest.as_bytes() {
                    [byte @ b'a'..=b'z'] => Ok(byte - b'a' + 1),
                    [byte @ b'A'..=b'Z'] => Ok(byte - b'A' + 1),
                    [b'@'] => Ok(0),
                    [byte @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(byte - b'@'),
                    _ => Err(()),
                },
            })
            .collect::<Result<_, ()>>()
            .map_err(|()| Error::Invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { sequence, matched: 0 })
    }

    /// Takes what the client sent. Gives what to forward, and whether the sequence is complete
    /// (the rest of the input is dropped then).
    pub fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut forward = Vec::with_capacity(input.len());
        for &byte in input {
            if byte != self.sequence[self.matched] {
                forward.extend_from_slice(&self.sequence[..self.matched]);
                self.matched = 0;
            }
            if byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return (forward, true);
                }
            } else {
                forward.push(byte);
            }
        }
        (forward, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_ctrl_p_ctrl_q_even_in_pieces() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(b"\x11rest"), (vec![], true));
    }

    #[test]
    fn keys_of_a_broken_sequence_are_not_lost() {
        let mut keys = DetachKeys::parse(Some("ctrl-a,b")).unwrap();
        assert_eq!(keys.feed(b"\x01x\x01"), (b"\x01x".to_vec(), false));
        assert_eq!(keys.feed(b"\x01b"), (b"\x01".to_vec(), true));
    }

    #[test]
    fn nonsense_is_refused() {
        let error = DetachKeys::parse(Some("ctrl-")).unwrap_err();
        assert_eq!(error.to_string(), "Invalid detach keys (ctrl-) provided");
    }
}
