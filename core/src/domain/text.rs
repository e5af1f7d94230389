//! Characters that readers cannot see, or that change the position of others: rejected in names, and
//! escaped wherever text from other users is shown. Called by the fields and by code that displays
//! them.

/// Returns whether a character is hidden in text or changes its direction: bidirectional controls, soft
/// hyphens, zero-width spaces, tags, interlinear marks, and deprecated format characters. No language
/// needs them.
#[must_use]
pub fn is_deceptive(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}')
}

/// Returns whether a character only affects the look of others: joiners, which some scripts and emoji
/// need, and variation selectors.
fn is_joining(character: char) -> bool {
    matches!(character,
        '\u{34f}' | '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{e0100}'..='\u{e01ef}')
}

/// Returns whether a character is invisible: white space, controls, deceptive or joining characters,
/// and fillers.
#[must_use]
pub fn is_invisible(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || is_deceptive(character)
        || is_joining(character)
        || matches!(
            character,
            '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
        )
}

/// Returns whether a character must be escaped when text is shown: those that a terminal would
/// interpret, and invisible ones, except spaces and variation selectors.
#[must_use]
pub fn is_escaped(character: char) -> bool {
    let selects = matches!(character, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}');
    let spaces = character.is_whitespace() && !character.is_control() && !is_deceptive(character);
    is_invisible(character) && !selects && !spaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deceptive_characters_are_distinguished_from_those_that_languages_need() {
        for hidden in
            "\u{ad}\u{61c}\u{200b}\u{200e}\u{202e}\u{2066}\u{2069}\u{feff}\u{fff9}\u{e0041}\u{e007f}".chars()
        {
            assert!(is_deceptive(hidden) && is_invisible(hidden) && is_escaped(hidden), "{hidden:?}");
        }
        for part in "\u{200c}\u{200d}\u{fe0f}\u{3164}\u{2800}".chars() {
            assert!(!is_deceptive(part) && is_invisible(part), "{part:?}");
        }
        for visible in "aé漢字ا\u{301}\u{1f600}-".chars() {
            assert!(!is_invisible(visible) && !is_escaped(visible), "{visible:?}");
        }
        assert!(!is_escaped(' ') && !is_escaped('\u{3000}') && !is_escaped('\u{fe0f}'));
        assert!(is_escaped('\n') && is_escaped('\u{85}') && is_escaped('\u{2029}') && is_escaped('\u{200d}'));
    }
}
