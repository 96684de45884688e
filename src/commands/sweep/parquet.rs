//! The records of a sweep as one Parquet file: a row for each problem, configuration, N and seed.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use session::sweep::{Filled, Record};
use strategies::{Level, Selection};

/// A row: a record and the cell it is of.
struct Row<'a> {
    filled: &'a Filled<'a>,
    record: &'a Record,
}

/// What a column holds.
enum Values {
    Text(fn(&Row<'_>) -> String),
    OptionalText(fn(&Row<'_>) -> Option<String>),
    Number(fn(&Row<'_>) -> i64),
    OptionalNumber(fn(&Row<'_>) -> Option<i64>),
    /// Whether the answer by a selection is right; `None`: by the search's own.
    Verdict(Option<Selection>),
}

/// The columns, in order. `correct_…` has the verdict of each selection.
fn columns(records: &[Row<'_>]) -> Vec<(String, Values)> {
    let mut columns: Vec<(String, Values)> = vec![
        (
            "policy".into(),
            Values::Text(|r| r.filled.cell.policy.clone()),
        ),
        (
            "prm".into(),
            Values::OptionalText(|r| r.filled.cell.prm.clone()),
        ),
        (
            "strategy".into(),
            Values::Text(|r| r.filled.cell.search.strategy.name().into()),
        ),
        (
            "configuration".into(),
            Values::Text(|r| r.filled.cell.configuration.clone()),
        ),
        ("n".into(), Values::Number(|r| r.record.n as i64)),
        (
            "seed".into(),
            Values::Number(|r| r.filled.cell.search.seed as i64),
        ),
        ("id".into(), Values::Text(|r| r.record.id.clone())),
        (
            "level".into(),
            Values::OptionalText(|r| r.record.level.as_ref().map(Level::to_string)),
        ),
        ("correct".into(), Values::Verdict(None)),
        (
            "solutions".into(),
            Values::Number(|r| r.record.solutions as i64),
        ),
        (
            "right".into(),
            Values::OptionalNumber(|r| r.record.right.map(|right| right as i64)),
        ),
        (
            "policy_tokens".into(),
            Values::Number(|r| r.record.policy_tokens as i64),
        ),
        (
            "prm_tokens".into(),
            Values::Number(|r| r.record.prm_tokens as i64),
        ),
        (
            "policy_flops".into(),
            Values::Number(|r| r.record.policy_flops as i64),
        ),
        (
            "prm_flops".into(),
            Values::Number(|r| r.record.prm_flops as i64),
        ),
    ];
    for selection in Selection::all() {
        let name = selection.to_string();
        if records
            .iter()
            .any(|row| row.record.verdicts.contains_key(&name))
        {
            let column = format!("correct_{}", name.replace('-', "_"));
            columns.push((column, Values::Verdict(Some(selection))));
        }
    }
    columns
}

/// The bytes of the file.
///
/// # Errors
/// Those of the writer.
pub fn file(cells: &[Filled<'_>]) -> Result<Vec<u8>, ParquetError> {
    let rows: Vec<Row<'_>> = (cells.iter())
        .flat_map(|filled| {
            filled
                .records
                .iter()
                .map(move |record| Row { filled, record })
        })
        .collect();
    let columns = columns(&rows);
    let fields: String = (columns.iter())
        .map(|(name, values)| format!("{} {name}{};\n", values.kind(), values.annotation()))
        .collect();
    let schema = Arc::new(parse_message_type(&format!(
        "message sweep {{\n{fields}}}"
    ))?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let properties = Arc::new(properties.build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    for (_, values) in &columns {
        values.write(&rows, &mut group)?;
    }
    group.close()?;
    writer.into_inner()
}

impl Values {
    fn kind(&self) -> &'static str {
        match self {
            Values::Text(_) => "REQUIRED BYTE_ARRAY",
            Values::OptionalText(_) => "OPTIONAL BYTE_ARRAY",
            Values::Number(_) => "REQUIRED INT64",
            Values::OptionalNumber(_) => "OPTIONAL INT64",
            Values::Verdict(_) => "OPTIONAL BOOLEAN",
        }
    }

    fn annotation(&self) -> &'static str {
        match self {
            Values::Text(_) | Values::OptionalText(_) => " (UTF8)",
            _ => "",
        }
    }

    fn write(&self, rows: &[Row<'_>], group: &mut Group<'_>) -> Result<(), ParquetError> {
        match self {
            Values::Text(of) => {
                column::<ByteArrayType>(group, rows, |row| Some(of(row).as_str().into()), true)
            }
            Values::OptionalText(of) => {
                let text = |row: &Row<'_>| of(row).map(|text| ByteArray::from(text.as_str()));
                column::<ByteArrayType>(group, rows, text, false)
            }
            Values::Number(of) => column::<Int64Type>(group, rows, |row| Some(of(row)), true),
            Values::OptionalNumber(of) => column::<Int64Type>(group, rows, of, false),
            Values::Verdict(None) => {
                column::<BoolType>(group, rows, |row| row.record.correct, false)
            }
            Values::Verdict(Some(selection)) => {
                let verdict = |row: &Row<'_>| row.record.is_right(*selection);
                column::<BoolType>(group, rows, verdict, false)
            }
        }
    }
}

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

/// Writes the next column: a definition level for each row unless it is required.
fn column<T: DataType>(
    group: &mut Group<'_>,
    rows: &[Row<'_>],
    value: impl Fn(&Row<'_>) -> Option<T::T>,
    required: bool,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = rows.iter().map(value).collect();
    let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    let levels = (!required).then_some(levels.as_slice());
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("a column too many".into()));
    };
    column.typed::<T>().write_batch(&values, levels, None)?;
    column.close()
}
