//! Tables as SONiC's commands print them: a header, dashes, two spaces between columns (the "simple"
//! format of python-tabulate).

/// A table of text. Cells may have several lines.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Table {
        Table { header: header.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|title| title.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.lines().map(|line| line.chars().count()).fold(*width, usize::max);
            }
        }
        let mut text = String::new();
        let header: Vec<String> = self.header.iter().map(|title| (*title).to_owned()).collect();
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        for row in [&header, &dashes].into_iter().chain(&self.rows) {
            let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0).max(1);
            for n in 0..height {
                let line = row.iter().zip(&widths).map(|(cell, width)| {
                    let part = printable(cell.lines().nth(n).unwrap_or_default());
                    format!("{part:<width$}")
                });
                let line = line.collect::<Vec<_>>().join("  ");
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

/// Text from outside, without what could steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_may_have_lines() {
        let mut table = Table::new(&["Port", "Addresses", "Note"]);
        table.row(vec!["Ethernet0".into(), "::1\n::22".into(), "a\u{1b}[0m".into()]);
        table.row(vec!["E".into(), String::new(), String::new()]);
        assert_eq!(
            table.render(),
            "Port       Addresses  Note\n\
             ---------  ---------  -----\n\
             Ethernet0  ::1        a?[0m\n\
             \x20          ::22\n\
             E\n"
        );
    }
}
