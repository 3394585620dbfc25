//! Python literals of strings and bytes, as a vocabulary's list holds them.

/// The bytes of `'…'`, `"…"`, `b'…'` or `b"…"`; a string's in UTF-8.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(literal: &str) -> Result<Vec<u8>, String> {
    let (text, raw) = match literal.strip_prefix(['b', 'B']) {
        Some(rest) => (rest, true),
        None => (literal, false),
    };
    let inner = ['\'', '"'].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        Some((inner, quote))
    });
    let Some((inner, quote)) = inner else {
        return Err("it is not a Python literal such as 'a' or b'\\xff'".into());
    };
    let mut bytes = Vec::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut chars, raw, &mut bytes)?,
            c if c == quote => return Err(format!("it goes on after its {quote}")),
            c if raw && !c.is_ascii() => return Err(format!("{c:?} is not a byte")),
            c => push(c, &mut bytes),
        }
    }
    Ok(bytes)
}

fn push(c: char, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What follows a backslash.
fn escape(chars: &mut std::str::Chars<'_>, raw: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let Some(c) = chars.next() else { return Err("it ends in a backslash".into()) };
    let code = match c {
        '\\' | '\'' | '"' => c as u32,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'v' => 11,
        '0'..='7' => octal(c, chars),
        'x' => digits(2, chars)?,
        'u' if !raw => digits(4, chars)?,
        'U' if !raw => digits(8, chars)?,
        _ => return Err(format!("the escape \\{c} is unknown")),
    };
    match (u8::try_from(code), char::from_u32(code)) {
        (Ok(byte), _) if raw => out.push(byte),
        (_, Some(c)) if !raw => push(c, out),
        _ => return Err(format!("the escape \\{c} does not give a character")),
    }
    Ok(())
}

fn octal(first: char, chars: &mut std::str::Chars<'_>) -> u32 {
    let mut value = first.to_digit(8).unwrap_or_default();
    for _ in 0..2 {
        let Some(digit) = chars.clone().next().and_then(|c| c.to_digit(8)) else { break };
        chars.next();
        value = 8 * value + digit;
    }
    value
}

fn digits(count: usize, chars: &mut std::str::Chars<'_>) -> Result<u32, String> {
    (0..count).try_fold(0u32, |value, _| {
        let digit = chars.next().and_then(|c| c.to_digit(16));
        let digit = digit.ok_or_else(|| format!("{count} hexadecimal digits were expected"))?;
        Ok(value.wrapping_mul(16) + digit)
    })
}
