//! `--vtysh` as words, with a shell's quotes.

/// Splits at blanks; `'...'`, `"..."` and `\` quote. `None` when nothing is left or a quote stays open.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().push(characters.next()?),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (quote.is_none() && words.first().is_some_and(|program| !program.is_empty())).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_as_a_shell_has_them() {
        for (text, words) in [
            ("vtysh", vec!["vtysh"]),
            (" docker exec  -i bgp vtysh ", vec!["docker", "exec", "-i", "bgp", "vtysh"]),
            ("'/opt/my frr/vtysh' -N \"leaf 1\"", vec!["/opt/my frr/vtysh", "-N", "leaf 1"]),
            (r#"a\ b '\' "\"" ''"#, vec!["a b", "\\", "\"", ""]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for bad in ["", "  ", "''", "'vtysh", "vtysh \"", "vtysh \\"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
