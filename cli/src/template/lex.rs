//! Text and tokens of a template.

use super::TemplateError;

/// A token and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 0.
    pub column: usize,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Text(String),
    Open,
    Close,
    /// `.name`; the flag says whether a space stands before it.
    Field(String, bool),
    Dot,
    /// `$name`, without the dollar.
    Variable(String),
    Identifier(String),
    String(String),
    Integer(i64),
    Float(f64),
    LeftParen,
    RightParen,
    Pipe,
    Declare,
    Assign,
    Comma,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

/// Cuts a template into tokens.
pub(super) fn lex(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    let mut trim_left = false;
    loop {
        let rest = &text[lexer.at..];
        let open = rest.find("{{");
        let mut piece = &rest[..open.unwrap_or(rest.len())];
        if trim_left {
            piece = piece.trim_start();
        }
        let trims = open.is_some_and(|at| {
            let mut after = rest[at + 2..].chars();
            after.next() == Some('-') && after.next().is_some_and(char::is_whitespace)
        });
        if trims {
            piece = piece.trim_end();
        }
        if !piece.is_empty() {
            lexer.push(Kind::Text(piece.to_owned()), lexer.at);
        }
        let Some(open) = open else { return Ok(lexer.tokens) };
        lexer.at += open + 2 + usize::from(trims);
        trim_left = lexer.action()?;
    }
}

impl<'a> Lexer<'a> {
    fn push(&mut self, kind: Kind, start: usize) {
        let before = &self.text[..start];
        let line = before.matches('\n').count() + 1;
        let column = start - before.rfind('\n').map_or(0, |at| at + 1);
        self.tokens.push(Token { kind, line, column });
    }

    fn error(&self, message: impl Into<String>) -> TemplateError {
        let line = self.text[..self.at.min(self.text.len())].matches('\n').count() + 1;
        TemplateError::Parse { line, message: message.into() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Reads up to the closing braces; true where they trim the text after them.
    fn action(&mut self) -> Result<bool, TemplateError> {
        if self.rest().trim_start().starts_with("/*") {
            return self.comment();
        }
        self.push(Kind::Open, self.at);
        let mut parens = 0usize;
        loop {
            let space = !self.take_while(char::is_whitespace).is_empty();
            let (start, rest) = (self.at, self.rest());
            if rest.starts_with("}}") || (space && rest.starts_with("-}}")) {
                if parens > 0 {
                    return Err(self.error("unclosed left paren"));
                }
                self.push(Kind::Close, start);
                let trims = rest.starts_with('-');
                self.at += 2 + usize::from(trims);
                return Ok(trims);
            }
            let Some(next) = rest.chars().next() else { return Err(self.error("unclosed action")) };
            let kind = match next {
                '(' => {
                    parens += 1;
                    self.one(Kind::LeftParen)
                }
                ')' => {
                    parens = parens.checked_sub(1).ok_or_else(|| self.error("unexpected right paren"))?;
                    self.one(Kind::RightParen)
                }
                '|' => self.one(Kind::Pipe),
                ',' => self.one(Kind::Comma),
                '=' => self.one(Kind::Assign),
                ':' if rest.starts_with(":=") => {
                    self.at += 2;
                    Kind::Declare
                }
                '"' => self.quoted()?,
                '`' => self.raw()?,
                '\'' => self.character()?,
                '$' => {
                    self.at += 1;
                    Kind::Variable(self.take_while(is_word).to_owned())
                }
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    self.at += 1;
                    match self.take_while(is_word) {
                        "" => Kind::Dot,
                        name => Kind::Field(name.to_owned(), space),
                    }
                }
                c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number()?,
                c if is_word(c) => Kind::Identifier(self.take_while(is_word).to_owned()),
                c => {
                    return Err(self.error(format!("unexpected {:?} in operand", c.to_string())));
                }
            };
            self.push(kind, start);
        }
    }

    fn one(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest().find("*/") else { return Err(self.error("unclosed comment")) };
        self.at += end + 2;
        let trims = self.rest().trim_start().starts_with("-}}");
        self.take_while(char::is_whitespace);
        self.at += usize::from(trims);
        if !self.rest().starts_with("}}") {
            return Err(self.error("comment ends before closing delimiter"));
        }
        self.at += 2;
        Ok(trims)
    }

    fn quoted(&mut self) -> Result<Kind, TemplateError> {
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok(Kind::String(out));
                }
                '\n' => break,
                '\\' => {
                    let escape = chars.next().map(|(_, c)| c);
                    let code = match escape {
                        Some('x') => Some(2),
                        Some('u') => Some(4),
                        Some('U') => Some(8),
                        _ => None,
                    };
                    let decoded = match (escape, code) {
                        (_, Some(length)) => {
                            let digits: String = chars.by_ref().take(length).map(|(_, c)| c).collect();
                            u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)
                        }
                        (Some(c), None) => unescape(c),
                        (None, None) => None,
                    };
                    out.push(decoded.ok_or_else(|| self.error("invalid syntax"))?);
                }
                c => out.push(c),
            }
        }
        Err(self.error("unterminated quoted string"))
    }

    fn raw(&mut self) -> Result<Kind, TemplateError> {
        let rest = &self.rest()[1..];
        let Some(end) = rest.find('`') else { return Err(self.error("unterminated raw quoted string")) };
        self.at += end + 2;
        Ok(Kind::String(rest[..end].to_owned()))
    }

    fn character(&mut self) -> Result<Kind, TemplateError> {
        let rest = &self.rest()[1..];
        let mut chars = rest.chars();
        let decoded = match chars.next() {
            Some('\\') => chars.next().and_then(unescape),
            Some('\'') | None => None,
            Some(c) => Some(c),
        };
        match (decoded, chars.as_str().strip_prefix('\'')) {
            (Some(c), Some(after)) => {
                self.at = self.text.len() - after.len();
                Ok(Kind::Integer(i64::from(u32::from(c))))
            }
            _ => Err(self.error("unterminated character constant")),
        }
    }

    fn number(&mut self) -> Result<Kind, TemplateError> {
        let text = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_'));
        let plain = text.replace('_', "");
        let (sign, digits) = match plain.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
        };
        let lower = digits.to_ascii_lowercase();
        let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
        let integer = match radix
            .iter()
            .find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, *radix)))
        {
            Some((digits, radix)) => i64::from_str_radix(digits, radix).ok(),
            None => digits.parse::<i64>().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit())),
        };
        if let Some(integer) = integer {
            return Ok(Kind::Integer(sign * integer));
        }
        match digits.starts_with(|c: char| c.is_ascii_digit() || c == '.').then(|| plain.parse()) {
            Some(Ok(float)) => Ok(Kind::Float(float)),
            _ => Err(self.error(format!("bad number syntax: {text:?}"))),
        }
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn unescape(c: char) -> Option<char> {
    Some(match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' | '"' | '\'' => c,
        _ => return None,
    })
}
