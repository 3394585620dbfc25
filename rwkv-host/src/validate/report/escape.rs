//! Text that cannot break out of a page.

use std::fmt::{self, Write};

/// Anything that is shown, as text of an HTML or SVG element or of a quoted attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<T>(pub T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            '\n' | '\t' => self.0.write_char(c),
            // A page must not have these; their pictures are in Unicode from here on.
            '\0'..'\u{20}' => self.0.write_char(char::from_u32(0x2400 + c as u32).unwrap_or(' ')),
            '\u{7f}'..='\u{9f}' => self.0.write_char(char::REPLACEMENT_CHARACTER),
            c => self.0.write_char(c),
        })
    }
}

/// The start of a text, with a sign that there is more.
pub(super) fn start_of(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_page_would_read() {
        let hostile = "</td><script>alert('x')</script>&amp;\"\0\u{1b}\u{85}\n\u{e9}";
        assert_eq!(
            Text(hostile).to_string(),
            "&lt;/td&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;amp;&quot;\
             \u{2400}\u{241b}\u{fffd}\n\u{e9}"
        );
        assert_eq!(start_of("\u{e9}\u{e9}\u{e9}", 2), "\u{e9}\u{e9}…");
        assert_eq!(start_of("ab", 2), "ab");
    }
}
