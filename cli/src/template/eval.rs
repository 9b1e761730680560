//! Executing a template on JSON.

use std::borrow::Cow;

use serde_json::Value;

use super::parse::{Call, Node, Operand, Pipeline, Primary};
use super::{Data, TemplateError, functions};

/// Values are borrowed from the data wherever possible: `inspect` of many objects is large.
pub(super) type Item<'a> = Cow<'a, Value>;

/// Output beyond this is refused: nested `range` can multiply without bound.
const MAX_OUTPUT_BYTES: usize = 256 << 20;

struct Run<'a> {
    data: Data<'a>,
    variables: Vec<(String, Item<'a>)>,
    out: String,
}

enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) fn execute(nodes: &[Node], data: Data<'_>) -> Result<String, TemplateError> {
    let variables = vec![(String::new(), Cow::Borrowed(data.root))];
    let mut run = Run { data, variables, out: String::new() };
    run.list(nodes, &Cow::Borrowed(data.root))?;
    Ok(run.out)
}

impl<'a> Run<'a> {
    fn list(&mut self, nodes: &[Node], dot: &Item<'a>) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if !matches!(flow, Flow::Next) {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// A list in a scope of its own.
    fn scoped(&mut self, nodes: &[Node], dot: &Item<'a>) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let flow = self.list(nodes, dot);
        self.variables.truncate(scope);
        flow
    }

    fn node(&mut self, node: &Node, dot: &Item<'a>) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&functions::printed(&value));
                    if self.out.len() > MAX_OUTPUT_BYTES {
                        return Err(error_at(&pipeline.commands[0].operands[0], "the output is too large"));
                    }
                }
            }
            Node::If { arms, otherwise } => return self.branch(arms, otherwise, dot, false),
            Node::With { arms, otherwise } => return self.branch(arms, otherwise, dot, true),
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(
        &mut self,
        arms: &[(Pipeline, Vec<Node>)],
        otherwise: &[Node],
        dot: &Item<'a>,
        moves_dot: bool,
    ) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        for (condition, body) in arms {
            let value = self.pipeline(condition, dot)?;
            if functions::truth(&value) {
                let flow = self.list(body, if moves_dot { &value } else { dot });
                self.variables.truncate(scope);
                return flow;
            }
        }
        let flow = self.list(otherwise, dot);
        self.variables.truncate(scope);
        flow
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Item<'a>,
    ) -> Result<Flow, TemplateError> {
        let scope = self.variables.len();
        let bare = Pipeline { variables: Vec::new(), ..over.clone() };
        let value = self.pipeline(&bare, dot)?;
        let items = match items(value) {
            Ok(items) => items,
            Err(value) => {
                let message = format!("range can't iterate over {}", functions::printed(&value));
                return Err(error_at(&over.commands[0].operands[0], message));
            }
        };
        if items.is_empty() {
            return self.scoped(otherwise, dot);
        }
        for (key, item) in items {
            match over.variables.as_slice() {
                [] => {}
                [one] => self.bind(one, over.declares, item.clone()),
                [first, second, ..] => {
                    self.bind(first, over.declares, Cow::Owned(key));
                    self.bind(second, over.declares, item.clone());
                }
            }
            let flow = self.list(body, &item);
            self.variables.truncate(scope);
            if matches!(flow?, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn bind(&mut self, name: &str, declares: bool, value: Item<'a>) {
        if declares {
            self.variables.push((name.to_owned(), value));
        } else if let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            slot.1 = value;
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Item<'a>) -> Result<Item<'a>, TemplateError> {
        let mut value = None;
        for call in &pipeline.commands {
            value = Some(self.call(call, dot, value)?);
        }
        let value = value.expect("a pipeline has a command");
        if let [name] = pipeline.variables.as_slice() {
            self.bind(name, pipeline.declares, value.clone());
        }
        Ok(value)
    }

    fn call(
        &mut self,
        call: &Call,
        dot: &Item<'a>,
        piped: Option<Item<'a>>,
    ) -> Result<Item<'a>, TemplateError> {
        let [first, rest @ ..] = call.operands.as_slice() else {
            unreachable!("a call has an operand");
        };
        let Primary::Function(name) = &first.value else {
            if rest.is_empty() && piped.is_none() {
                return self.operand(first, dot);
            }
            let mut arguments = self.arguments(rest, dot)?;
            arguments.extend(piped);
            return self.method(first, dot, &arguments);
        };
        // These two stop at the first operand that decides; the others are not evaluated.
        if name == "and" || name == "or" {
            let mut last = None;
            for operand in rest {
                let value = self.operand(operand, dot)?;
                if functions::truth(&value) == (name == "or") {
                    return Ok(value);
                }
                last = Some(value);
            }
            return piped.or(last).ok_or_else(|| {
                error_at(first, format!("wrong number of args for {name}: want at least 1 got 0"))
            });
        }
        let mut arguments = self.arguments(rest, dot)?;
        arguments.extend(piped);
        let value = functions::call(name, &arguments, self.data.header)
            .map_err(|message| error_at(first, message))?;
        self.fields(value, first)
    }

    fn arguments(&mut self, operands: &[Operand], dot: &Item<'a>) -> Result<Vec<Item<'a>>, TemplateError> {
        operands.iter().map(|operand| self.operand(operand, dot)).collect()
    }

    fn operand(&mut self, operand: &Operand, dot: &Item<'a>) -> Result<Item<'a>, TemplateError> {
        let value = match &operand.value {
            Primary::Dot => dot.clone(),
            Primary::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map_or(Cow::Owned(Value::Null), |(_, value)| value.clone()),
            Primary::Literal(value) => Cow::Owned(value.clone()),
            Primary::Function(name) => {
                functions::call(name, &[], self.data.header).map_err(|message| error_at(operand, message))?
            }
            Primary::Nested(pipeline) => self.pipeline(pipeline, dot)?,
        };
        self.fields(value, operand)
    }

    fn fields(&self, mut value: Item<'a>, operand: &Operand) -> Result<Item<'a>, TemplateError> {
        for name in &operand.fields {
            value = match field(value, name) {
                Ok(value) => value,
                Err(message) => return Err(error_at(operand, message)),
            };
        }
        Ok(value)
    }

    /// The one method that rows have: `.Label "name"`.
    fn method(
        &self,
        operand: &Operand,
        dot: &Item<'a>,
        arguments: &[Item<'a>],
    ) -> Result<Item<'a>, TemplateError> {
        let [name] = operand.fields.as_slice() else {
            return Err(error_at(operand, "can't give argument to a field"));
        };
        let on_root = matches!(dot, Cow::Borrowed(dot) if std::ptr::eq(*dot, self.data.root));
        let (Some(labels), "Label", true) = (self.data.labels, name.as_str(), on_root) else {
            return Err(error_at(operand, format!("{name} has arguments but cannot be invoked as function")));
        };
        let [Value::String(label)] = arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] else {
            return Err(error_at(operand, "wrong number of args for Label: want 1 string"));
        };
        if self.data.header {
            let last = label.rsplit('.').next().unwrap_or(label).replace(['-', '_'], " ");
            return Ok(Cow::Owned(Value::String(last)));
        }
        Ok(labels.get(label).map_or_else(|| Cow::Owned(Value::String(String::new())), Cow::Borrowed))
    }
}

/// A field of an object; anything else has none.
fn field<'a>(value: Item<'a>, name: &str) -> Result<Item<'a>, String> {
    let missing = || format!("map has no entry for key \"{name}\"");
    match value {
        Cow::Borrowed(Value::Object(map)) => map.get(name).map(Cow::Borrowed).ok_or_else(missing),
        Cow::Owned(Value::Object(mut map)) => map.shift_remove(name).map(Cow::Owned).ok_or_else(missing),
        other => Err(match other.as_ref() {
            Value::Null => format!("nil data; no entry for key \"{name}\""),
            other => format!("can't evaluate field {name} in type {}", functions::type_name(other)),
        }),
    }
}

/// Keys and values in the order of Go: lists as they are, maps by key, numbers from 0.
fn items(value: Item<'_>) -> Result<Vec<(Value, Item<'_>)>, Value> {
    Ok(match value {
        Cow::Borrowed(Value::Array(list)) => {
            list.iter().enumerate().map(|(at, item)| (at.into(), Cow::Borrowed(item))).collect()
        }
        Cow::Owned(Value::Array(list)) => {
            list.into_iter().enumerate().map(|(at, item)| (at.into(), Cow::Owned(item))).collect()
        }
        Cow::Borrowed(Value::Object(map)) => {
            let mut items: Vec<_> = map.iter().collect();
            items.sort_by_key(|(key, _)| *key);
            items.into_iter().map(|(key, item)| (key.clone().into(), Cow::Borrowed(item))).collect()
        }
        Cow::Owned(Value::Object(map)) => {
            let mut items: Vec<_> = map.into_iter().collect();
            items.sort_by(|(a, _), (b, _)| a.cmp(b));
            items.into_iter().map(|(key, item)| (key.into(), Cow::Owned(item))).collect()
        }
        value => match value.as_ref() {
            Value::Null => Vec::new(),
            Value::Number(number) => match number.as_i64() {
                Some(count @ ..=1_000_000) => {
                    (0..count.max(0)).map(|at| (at.into(), Cow::Owned(at.into()))).collect()
                }
                _ => return Err(value.into_owned()),
            },
            _ => return Err(value.into_owned()),
        },
    })
}

fn error_at(operand: &Operand, message: impl Into<String>) -> TemplateError {
    let mut at = match &operand.value {
        Primary::Dot if operand.fields.is_empty() => ".".to_owned(),
        Primary::Dot => String::new(),
        Primary::Variable(name) => format!("${name}"),
        Primary::Literal(value) => value.to_string(),
        Primary::Function(name) => name.clone(),
        Primary::Nested(_) => "(…)".to_owned(),
    };
    for field in &operand.fields {
        at.push('.');
        at.push_str(field);
    }
    TemplateError::Execute { line: operand.line, column: operand.column, at, message: message.into() }
}
