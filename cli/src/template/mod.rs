//! The template language of `--format`: the part of Go's text/template that is used with Docker.
//!
//! Actions `{{…}}` with trim markers, comments, `if`/`else if`/`else`, `range` with `else`, `break`
//! and `continue`, `with`, variables, pipelines, parentheses, field chains, and the functions of
//! [`functions`]. Not there: `define`, `template` and `block`, which a single format has no use for.
//!
//! The data is JSON. A field of an object is looked up by its exact name; a name that is not there
//! is an error, as in Docker, since it is most often a misspelling.

mod eval;
mod functions;
mod lex;
mod parse;

use serde_json::Value;

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// Why a template could not be parsed or executed, with the text that Docker prints.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("template: :{line}: {message}")]
    Parse {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The data does not fit.
    #[error("template: :{line}:{column}: executing \"\" at <{at}>: {message}")]
    Execute {
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 0.
        column: usize,
        /// The part of the template.
        at: String,
        /// What is wrong.
        message: String,
    },
}

/// What a template is executed on.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    /// The value of `.` and `$`.
    pub root: &'a Value,
    /// Labels for `{{.Label "name"}}`, where the root has that method.
    pub labels: Option<&'a Value>,
    /// Whether this is the header of a table: functions return the column's name as it is.
    pub header: bool,
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let tokens = lex::lex(text)?;
        Ok(Self { nodes: parse::parse(&tokens)? })
    }

    /// Executes it on one value.
    pub fn render(&self, root: &Value) -> Result<String, TemplateError> {
        self.render_data(Data { root, labels: None, header: false })
    }

    /// Executes it.
    pub fn render_data(&self, data: Data<'_>) -> Result<String, TemplateError> {
        eval::execute(&self.nodes, data)
    }
}

#[cfg(test)]
mod tests;
