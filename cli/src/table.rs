//! Lists: aligned tables, and `--format` applied to every row.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::failure::{Failure, Outcome, fail};
use crate::output;
use crate::template::{Data, Template, TemplateError};

/// The least width of a column, and the space after its longest cell.
const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// One object of a list, as texts by field.
#[derive(Debug, Clone, Default)]
pub struct Row {
    fields: Value,
    labels: Value,
}

impl Row {
    /// A row of fields, in the order of their names.
    pub fn new<const N: usize>(fields: [(&'static str, Value); N]) -> Self {
        let sorted: BTreeMap<_, _> = fields.into_iter().collect();
        let fields: Map<String, Value> =
            sorted.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { fields: Value::Object(fields), labels: Value::Object(Map::new()) }
    }

    /// The same row with labels for `{{.Label "name"}}`.
    pub fn with_labels(self, labels: &Value) -> Self {
        Self { labels: labels.clone(), ..self }
    }
}

/// How a command lists its objects.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// Every field and its header.
    pub headers: &'a [(&'a str, &'a str)],
    /// The template of the table, cells separated by tabs.
    pub table: &'a str,
    /// The template of `-q`.
    pub quiet: &'a str,
}

/// A template as a user gives it, or the default of a command.
pub fn effective<'a>(format: Option<&'a str>, quiet: bool, layout: Layout<'a>) -> (String, bool) {
    match format {
        None | Some("" | "table") if quiet => (layout.quiet.to_owned(), false),
        None | Some("" | "table") => (layout.table.to_owned(), true),
        Some("json") => ("{{json .}}".to_owned(), false),
        Some(format) => match format.strip_prefix("table") {
            Some(rest) => (rest.trim_matches(' ').to_owned(), true),
            None => (format.trim_matches(' ').to_owned(), false),
        },
    }
}

/// Prints rows in the format asked for.
pub fn print(format: Option<&str>, quiet: bool, layout: Layout<'_>, rows: &[Row]) -> Outcome<()> {
    output::print(render(format, quiet, layout, rows)?)
}

/// The text of the rows in the format asked for.
pub fn render(format: Option<&str>, quiet: bool, layout: Layout<'_>, rows: &[Row]) -> Outcome<String> {
    let (text, is_table) = effective(format, quiet, layout);
    let template = Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"))
        .map_err(|error| fail(format!("failed to parse template: {error}")))?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if is_table {
        let names = layout.headers.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header)));
        let root = Value::Object(names.collect());
        let labels = Value::Object(Map::new());
        lines.push(template.render_data(Data { root: &root, labels: Some(&labels), header: true })?);
    }
    for row in rows {
        let data = Data { root: &row.fields, labels: Some(&row.labels), header: false };
        lines.push(
            template
                .render_data(data)
                .map_err(|error| fail(format!("failed to execute template: {error}")))?,
        );
    }
    Ok(if is_table { align(&lines) } else { lines.iter().map(|line| format!("{line}\n")).collect() })
}

/// Cells separated by tabs, in columns as wide as their longest cell.
pub fn align<S: AsRef<str>>(lines: &[S]) -> String {
    align_wide(lines, MIN_WIDTH)
}

/// The same with columns of at least `min_width` characters.
pub fn align_wide<S: AsRef<str>>(lines: &[S], min_width: usize) -> String {
    let rows: Vec<Vec<&str>> = lines
        .iter()
        .flat_map(|line| line.as_ref().split('\n'))
        .map(|line| line.split('\t').collect())
        .collect();
    let columns = rows.iter().map(|row| row.len().saturating_sub(1)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells =
                rows.iter().filter(|row| column + 1 < row.len()).map(|row| width(row[column]) + PADDING);
            cells.max().unwrap_or(0).max(min_width)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let last = row.len() - 1;
        for (column, cell) in row.into_iter().enumerate() {
            out.push_str(cell);
            if column < last {
                out.push_str(&" ".repeat(widths[column] - width(cell)));
            }
        }
        out.push('\n');
    }
    out
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        let code = if matches!(error, TemplateError::Parse { .. }) { 64 } else { 1 };
        Self::new(format!("template parsing error: {error}")).with_code(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout<'_> = Layout {
        headers: &[("ID", "CONTAINER ID"), ("Name", "NAME")],
        table: "{{.ID}}\t{{.Name}}",
        quiet: "{{.ID}}",
    };

    fn rows() -> Vec<Row> {
        vec![
            Row::new([("ID", "1".into()), ("Name", "a".into())]),
            Row::new([("Name", "é".into()), ("ID", "22222222222222".into())]),
        ]
    }

    #[test]
    fn columns_are_aligned() {
        let text = render(None, false, LAYOUT, &rows()).unwrap();
        assert_eq!(text, "CONTAINER ID     NAME\n1                a\n22222222222222   é\n");
        assert_eq!(align(&["a\tb\tc"]), "a         b         c\n");
    }

    #[test]
    fn formats_are_templates_tables_or_json() {
        assert_eq!(render(None, true, LAYOUT, &rows()).unwrap(), "1\n22222222222222\n");
        assert_eq!(
            render(Some("{{.Name}}\\t{{.ID}}"), false, LAYOUT, &rows()).unwrap(),
            "a\t1\né\t22222222222222\n"
        );
        assert_eq!(render(Some("table {{lower .Name}}"), false, LAYOUT, &rows()).unwrap(), "NAME\na\né\n");
        assert_eq!(
            render(Some("json"), false, LAYOUT, &rows()[..1]).unwrap(),
            "{\"ID\":\"1\",\"Name\":\"a\"}\n"
        );
        assert!(render(Some("{{.Nope}}"), false, LAYOUT, &rows()).is_err());
    }
}
