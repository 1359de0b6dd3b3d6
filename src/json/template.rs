//! Reads JSON records of one shape, such as the rows of a list, in one pass: the constant text between the values of the first record is
//! compared in the others instead of parsed.

use super::json_scan::JsonScanner;

/// A record that is read from JSON within the subset of [`JsonScanner`].
pub(crate) trait Record<'a>: Default {
    /// Its fields whose values may differ from record to record, nested ones as well.
    type Field: Copy;

    /// Reads a field's value; `None` for what serde would refuse, such as a field that occurs twice.
    fn take(&mut self, field: Self::Field, scanner: &mut JsonScanner<'a>) -> Option<()>;

    /// Reads a whole record; passes each value of a field to [`Reading::field`].
    fn read(reading: &mut Reading<'a, '_, Self>, scanner: &mut JsonScanner<'a>) -> Option<()>;
}

/// The constant text of a record: each piece with the field whose value follows it, and the text after the last value.
pub(crate) struct Template<'a, R: Record<'a>> {
    pieces: Vec<(&'a str, R::Field)>,
    end: &'a str,
}

impl<'a, R: Record<'a>> Default for Template<'a, R> {
    fn default() -> Self {
        let (pieces, end) = (Vec::new(), "");
        Self { pieces, end }
    }
}

impl<'a, R: Record<'a>> Template<'a, R> {
    /// Reads the next record; one of another shape than the last one becomes the template.
    pub(crate) fn read(&mut self, scanner: &mut JsonScanner<'a>) -> Option<R> {
        self.read_similar(scanner).or_else(|| self.record(scanner))
    }

    /// Reads a record of this shape; consumes nothing where it has another one.
    fn read_similar(&self, scanner: &mut JsonScanner<'a>) -> Option<R> {
        if self.end.is_empty() {
            return None;
        }
        let (mut ahead, mut record) = (*scanner, R::default());
        for (piece, field) in &self.pieces {
            ahead.word(piece)?;
            record.take(*field, &mut ahead)?;
        }
        ahead.word(self.end)?;
        *scanner = ahead;
        Some(record)
    }

    /// Reads a record of any shape, and keeps that.
    fn record(&mut self, scanner: &mut JsonScanner<'a>) -> Option<R> {
        self.pieces.clear();
        let mut reading = Reading {
            pieces: &mut self.pieces,
            record: R::default(),
            last: *scanner,
        };
        R::read(&mut reading, scanner)?;
        self.end = reading.last.until(scanner)?;
        Some(reading.record)
    }
}

/// A record that is read without a template.
pub(crate) struct Reading<'a, 't, R: Record<'a>> {
    pieces: &'t mut Vec<(&'a str, R::Field)>,
    record: R,
    /// The end of the last field's value.
    last: JsonScanner<'a>,
}

impl<'a, R: Record<'a>> Reading<'a, '_, R> {
    /// Reads this field's value.
    pub(crate) fn field(&mut self, field: R::Field, scanner: &mut JsonScanner<'a>) -> Option<()> {
        scanner.pass_space();
        self.pieces.push((self.last.until(scanner)?, field));
        self.record.take(field, scanner)?;
        self.last = *scanner;
        Some(())
    }
}

/// Sets a field; `None` where it was set already.
pub(crate) fn set_once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}
