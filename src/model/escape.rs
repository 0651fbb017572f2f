//! Text of others, made harmless before it is shown: no character of it moves a cursor, changes a
//! colour or turns the direction of writing.

use std::borrow::Cow;

/// The text on one line, with escapes for what would move a cursor.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// The same of a text of several lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

/// Whether a character moves a cursor, changes a colour, ends a line or turns the direction of writing.
pub fn is_odd(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_odd = |c: char| is_odd(c) && !is_kept(c);
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_odd(c) { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_moves_a_cursor_is_escaped_and_nothing_else() {
        assert_eq!(
            one_line("\x1b]0;x\x07a\r\u{9b}\u{202e}"),
            "\\u{1b}]0;x\\u{7}a\\r\\u{9b}\\u{202e}"
        );
        assert_eq!((&*one_line("a\nb"), &*lines("a\n\tb")), ("a\\nb", "a\n\\tb"));
        assert!(matches!(lines("é – “µ”\n"), Cow::Borrowed("é – “µ”\n")));
    }
}
