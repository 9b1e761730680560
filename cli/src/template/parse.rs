//! The tree of a template.

use serde_json::Value;

use super::TemplateError;
use super::functions;
use super::lex::{Kind, Token};

/// A piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If { arms: Vec<(Pipeline, Vec<Node>)>, otherwise: Vec<Node> },
    With { arms: Vec<(Pipeline, Vec<Node>)>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Break,
    Continue,
}

/// `$a, $b := command | command`.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub variables: Vec<String>,
    /// Whether the variables are new (`:=`).
    pub declares: bool,
    pub commands: Vec<Call>,
}

/// An operand and, where it is a function or a method, its arguments.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub operands: Vec<Operand>,
}

/// A value in a template and its place.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub value: Primary,
    /// Fields after it, as in `$x.A.B`.
    pub fields: Vec<String>,
    pub line: usize,
    pub column: usize,
}

/// The beginning of an operand.
#[derive(Debug, Clone)]
pub(super) enum Primary {
    Dot,
    Variable(String),
    Literal(Value),
    Function(String),
    Nested(Box<Pipeline>),
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Variables in scope.
    variables: Vec<String>,
    /// How many `range` are open.
    loops: usize,
    /// How deep actions and parentheses are nested.
    depth: usize,
}

/// Nesting beyond this is refused, so that no format overflows the stack.
const MAX_DEPTH: usize = 100;

/// How a list of nodes ended.
enum Stop {
    Input,
    Ended,
    Else,
    /// `{{else if` or `{{else with`; the pipeline follows.
    ElseChain,
}

pub(super) fn parse(tokens: &[Token]) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { tokens, at: 0, variables: vec![String::new()], loops: 0, depth: 0 };
    let (nodes, end) = parser.list(None)?;
    match end {
        Stop::Input => Ok(nodes),
        Stop::Ended => Err(parser.error("unexpected {{end}}")),
        Stop::Else | Stop::ElseChain => Err(parser.error("unexpected {{else}}")),
    }
}

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> TemplateError {
        let token = self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last());
        TemplateError::Parse { line: token.map_or(1, |token| token.line), message: message.into() }
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<&Token> {
        self.at += 1;
        self.tokens.get(self.at - 1)
    }

    fn eat(&mut self, kind: &Kind) -> bool {
        let found = self.peek() == Some(kind);
        self.at += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Kind::Identifier(name)) if name == word);
        self.at += usize::from(found);
        found
    }

    fn close(&mut self) -> Result<(), TemplateError> {
        if self.eat(&Kind::Close) {
            return Ok(());
        }
        let what = self.describe();
        Err(self.error(format!("unexpected {what} in action")))
    }

    fn describe(&self) -> String {
        match self.peek() {
            None => "EOF".to_owned(),
            Some(Kind::Identifier(name)) => format!("<{name}>"),
            Some(Kind::Field(name, _)) => format!("<.{name}>"),
            Some(Kind::Variable(name)) => format!("<${name}>"),
            Some(Kind::String(text)) => format!("{text:?}"),
            Some(Kind::Integer(number)) => format!("\"{number}\""),
            Some(Kind::Float(number)) => format!("\"{number}\""),
            Some(Kind::Dot) => "<.>".to_owned(),
            Some(Kind::Declare) => "\":=\"".to_owned(),
            Some(Kind::Assign) => "\"=\"".to_owned(),
            Some(Kind::Comma) => "\",\"".to_owned(),
            Some(Kind::Pipe) => "\"|\"".to_owned(),
            Some(Kind::LeftParen) => "\"(\"".to_owned(),
            Some(Kind::RightParen) => "\")\"".to_owned(),
            Some(Kind::Close) => "\"}}\"".to_owned(),
            Some(Kind::Open | Kind::Text(_)) => "text".to_owned(),
        }
    }

    /// Nodes up to an `end`, an `else`, or the end of the text. `chain` is the word that may follow
    /// an `else`.
    fn list(&mut self, chain: Option<&str>) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(token) = self.next() {
            if let Kind::Text(text) = &token.kind {
                nodes.push(Node::Text(text.clone()));
                continue;
            }
            let word = match self.peek() {
                Some(Kind::Identifier(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "end" => {
                    self.at += 1;
                    self.close()?;
                    return Ok((nodes, Stop::Ended));
                }
                "else" => {
                    self.at += 1;
                    if chain.is_some_and(|word| self.eat_word(word)) {
                        return Ok((nodes, Stop::ElseChain));
                    }
                    self.close()?;
                    return Ok((nodes, Stop::Else));
                }
                "if" | "with" => nodes.push(self.branch(&word)?),
                "range" => nodes.push(self.range()?),
                "break" | "continue" => {
                    self.at += 1;
                    if self.loops == 0 {
                        return Err(self.error(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                    }
                    self.close()?;
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return Err(self.error(format!("{{{{{word}}}}} is not supported in a format")));
                }
                _ => {
                    let pipeline = self.pipeline(&Kind::Close)?;
                    nodes.push(Node::Action(pipeline));
                }
            }
        }
        Ok((nodes, Stop::Input))
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn branch(&mut self, word: &str) -> Result<Node, TemplateError> {
        self.deeper(|parser| {
            let scope = parser.variables.len();
            parser.at += 1;
            let (mut arms, mut otherwise) = (Vec::new(), Vec::new());
            loop {
                let condition = parser.pipeline(&Kind::Close)?;
                let (body, end) = parser.list(Some(word))?;
                arms.push((condition, body));
                match end {
                    Stop::ElseChain => continue,
                    Stop::Ended => break,
                    Stop::Else => {
                        otherwise = parser.last_list()?;
                        break;
                    }
                    Stop::Input => return Err(parser.error("unexpected EOF")),
                }
            }
            parser.variables.truncate(scope);
            Ok(if word == "if" { Node::If { arms, otherwise } } else { Node::With { arms, otherwise } })
        })
    }

    fn range(&mut self) -> Result<Node, TemplateError> {
        self.deeper(|parser| {
            let scope = parser.variables.len();
            parser.at += 1;
            let over = parser.pipeline(&Kind::Close)?;
            parser.loops += 1;
            let (body, end) = parser.list(None)?;
            parser.loops -= 1;
            let otherwise = match end {
                Stop::Ended => Vec::new(),
                Stop::Else => parser.last_list()?,
                Stop::Input | Stop::ElseChain => return Err(parser.error("unexpected EOF")),
            };
            parser.variables.truncate(scope);
            Ok(Node::Range { over, body, otherwise })
        })
    }

    fn last_list(&mut self) -> Result<Vec<Node>, TemplateError> {
        match self.list(None)? {
            (nodes, Stop::Ended) => Ok(nodes),
            (_, Stop::Input) => Err(self.error("unexpected EOF")),
            _ => Err(self.error("expected end; found {{else}}")),
        }
    }

    fn pipeline(&mut self, end: &Kind) -> Result<Pipeline, TemplateError> {
        let (variables, declares) = self.declaration();
        if declares {
            self.variables.extend(variables.iter().cloned());
        } else if let Some(name) = variables.iter().find(|name| !self.variables.contains(name)) {
            return Err(self.error(format!("undefined variable \"${name}\"")));
        }
        let mut commands = Vec::new();
        loop {
            let call = self.call(end)?;
            if !commands.is_empty() && !call.takes_arguments() {
                let place = commands.len() + 1;
                return Err(self.error(format!("non executable command in pipeline stage {place}")));
            }
            commands.push(call);
            if self.eat(end) {
                return Ok(Pipeline { variables, declares, commands });
            }
            if !self.eat(&Kind::Pipe) {
                let what = self.describe();
                return Err(self.error(format!("unexpected {what} in command")));
            }
        }
    }

    /// `$x :=`, `$x =`, `$i, $x :=`; nothing is taken where it is none of them.
    fn declaration(&mut self) -> (Vec<String>, bool) {
        let start = self.at;
        let mut names = Vec::new();
        while let Some(Kind::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.at += 1;
            if names.len() < 2 && self.eat(&Kind::Comma) {
                continue;
            }
            if self.eat(&Kind::Declare) {
                return (names, true);
            }
            if self.eat(&Kind::Assign) {
                return (names, false);
            }
            break;
        }
        self.at = start;
        (Vec::new(), false)
    }

    fn call(&mut self, end: &Kind) -> Result<Call, TemplateError> {
        let mut operands = Vec::new();
        while let Some(kind) = self.peek() {
            if kind == end || *kind == Kind::Pipe {
                break;
            }
            operands.push(self.operand()?);
        }
        if operands.is_empty() {
            let context = if self.peek().is_none() { "unexpected EOF" } else { "missing value for command" };
            return Err(self.error(context));
        }
        let call = Call { operands };
        if call.operands.len() > 1 && !call.takes_arguments() {
            return Err(self.error("can't give argument to non-function"));
        }
        Ok(call)
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let what = self.describe();
        let Some(token) = self.next() else { return Err(self.error("unexpected EOF")) };
        let (line, column) = (token.line, token.column);
        let mut fields = Vec::new();
        let value = match token.kind.clone() {
            Kind::Dot => Primary::Dot,
            Kind::Field(name, _) => {
                fields.push(name);
                Primary::Dot
            }
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.error(format!("undefined variable \"${name}\"")));
                }
                Primary::Variable(name)
            }
            Kind::String(text) => Primary::Literal(Value::String(text)),
            Kind::Integer(number) => Primary::Literal(number.into()),
            Kind::Float(number) => Primary::Literal(number.into()),
            Kind::Identifier(name) => match name.as_str() {
                "true" => Primary::Literal(true.into()),
                "false" => Primary::Literal(false.into()),
                "nil" => Primary::Literal(Value::Null),
                _ if functions::is_known(&name) => Primary::Function(name),
                _ => return Err(self.error(format!("function \"{name}\" not defined"))),
            },
            Kind::LeftParen => {
                let inner = self.deeper(|parser| parser.pipeline(&Kind::RightParen))?;
                Primary::Nested(Box::new(inner))
            }
            _ => return Err(self.error(format!("unexpected {what} in operand"))),
        };
        while let Some(Kind::Field(name, false)) = self.peek() {
            fields.push(name.clone());
            self.at += 1;
        }
        Ok(Operand { value, fields, line, column })
    }
}

impl Call {
    /// Functions and methods do, values do not.
    fn takes_arguments(&self) -> bool {
        let first = &self.operands[0];
        matches!(first.value, Primary::Function(_)) || !first.fields.is_empty()
    }
}
