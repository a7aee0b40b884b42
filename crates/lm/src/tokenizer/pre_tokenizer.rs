//! Cutting text into words before merging, by the rule that `tokenizer.ggml.pre` names.
//!
//! A rule is a list of stages; each cuts what the stage before left, into its matches and the gaps
//! between them. The published patterns end in `\s+(?!\S)|\s+`: a run of white space before a word
//! leaves its last character to that word. The `regex` crate has no look-ahead, which is what keeps
//! it linear in the text; so the patterns here end in `\s+` and [`Stage::cut`] gives the character
//! back.
//!
//! Sources: the `tokenizer.json` files of the models, and llama.cpp's `llama-vocab.cpp` for the names.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use regex::Regex;

use super::error::TokenizerError;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN35: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##;
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}",
    r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}",
    r"\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}",
    r"\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}",
    r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}",
    r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}",
    r"\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}",
    r"\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}",
    r"\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}",
    r"\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}",
    r"\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}",
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
);
const DEEPSEEK_CJK: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";

/// How one family of models cuts text.
struct Rule {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// A word that is a token as a whole is not merged from its bytes.
    whole_words: bool,
    /// Texts begin with the begin-of-text token unless the file says otherwise.
    add_bos: bool,
}

const PLAIN: Rule = Rule { names: &[], patterns: &[], whole_words: false, add_bos: false };

const RULES: &[Rule] = &[
    Rule { names: &["default"], patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"], ..PLAIN },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        patterns: &[LLAMA3],
        whole_words: true,
        add_bos: true,
    },
    Rule { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Rule { names: &["glm4"], patterns: &[LLAMA3], whole_words: true, ..PLAIN },
    Rule {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "stablelm2", "hunyuan", "megrez", "grok-2", "solar-open"],
        patterns: &[QWEN2],
        ..PLAIN
    },
    Rule { names: &["qwen35"], patterns: &[QWEN35], ..PLAIN },
    Rule {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "gigachat",
            "exaone4",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "roberta-bpe",
        ],
        patterns: &[GPT2],
        ..PLAIN
    },
    Rule {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    Rule { names: &["falcon"], patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"], ..PLAIN },
    Rule {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
        ..PLAIN
    },
    Rule {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"],
        ..PLAIN
    },
    Rule {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[r"\p{N}{1,3}", r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+", DEEPSEEK_V3],
        ..PLAIN
    },
    Rule { names: &["tekken"], patterns: &[TEKKEN], whole_words: true, add_bos: true },
    Rule { names: &["gpt-4o", "llama4", "kanana2"], patterns: &[GPT4O], ..PLAIN },
    Rule { names: &["bloom", "poro-chat", "gpt3-finnish"], patterns: &[BLOOM], ..PLAIN },
    Rule { names: &["viking"], patterns: &[BLOOM, r"\p{N}"], ..PLAIN },
];

/// A compiled rule.
pub(super) struct PreTokenizer {
    stages: Vec<Stage>,
    whole_words: bool,
    add_bos: bool,
}

impl PreTokenizer {
    /// The rule called `name`, as `tokenizer.ggml.pre` has it.
    pub fn named(name: &str) -> Result<Self, TokenizerError> {
        let rule = rule(name)?;
        let stages = rule.patterns.iter().map(|pattern| Stage::new(pattern)).collect::<Result<_, _>>()?;
        Ok(Self { stages, whole_words: rule.whole_words, add_bos: rule.add_bos })
    }

    /// True when a word that is a token is taken without merging.
    pub fn takes_whole_words(&self) -> bool {
        self.whole_words
    }

    /// True when texts begin with the begin-of-text token by default.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// The words of `text`, in order; joined they are `text`.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut words = vec![text];
        for stage in &self.stages {
            let mut finer = Vec::with_capacity(words.len());
            for word in words {
                stage.cut(word, &mut finer);
            }
            words = finer;
        }
        words.retain(|word| !word.is_empty());
        words
    }
}

/// A rule as `tokenizer.json` files write it.
pub(crate) struct WordPatterns {
    /// Regular expressions with look-ahead; each cuts what the one before left.
    pub(crate) patterns: Vec<String>,
    /// A word that is a token as a whole is not merged from its bytes.
    pub(crate) whole_words: bool,
}

/// What the stage `ByteLevel` of a `tokenizer.json` cuts by where it is to: the words of GPT-2.
pub(crate) fn byte_level_words() -> String {
    published(GPT2)
}

/// The rule called `name`, with the published patterns.
pub(crate) fn word_patterns(name: &str) -> Result<WordPatterns, TokenizerError> {
    let rule = rule(name)?;
    Ok(WordPatterns { patterns: rule.patterns.iter().copied().map(published).collect(), whole_words: rule.whole_words })
}

/// The name of the rule with these published patterns.
pub(crate) fn name_of_words(patterns: &[String], whole_words: bool) -> Option<&'static str> {
    // Published with a flag for letters of either case, which not every engine has.
    let spelled_out = |pattern: &String| {
        pattern.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]")
    };
    let patterns: Vec<String> = patterns.iter().map(spelled_out).collect();
    let found = RULES.iter().find(|rule| {
        rule.whole_words == whole_words && rule.patterns.iter().copied().map(published).eq(patterns.iter().cloned())
    });
    found.and_then(|rule| rule.names.first().copied())
}

fn published(pattern: &str) -> String {
    match pattern.strip_suffix(r"|\s+") {
        Some(head) => format!(r"{head}|\s+(?!\S)|\s+"),
        None => pattern.to_owned(),
    }
}

fn rule(name: &str) -> Result<&'static Rule, TokenizerError> {
    RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
        TokenizerError::UnknownPreTokenizer { name: super::error::excerpt(name), known: known.join(", ") }
    })
}

/// `pattern` compiled, once in a process: that takes a millisecond or more.
fn compiled(pattern: &'static str) -> Result<Regex, TokenizerError> {
    static COMPILED: Mutex<BTreeMap<&str, Regex>> = Mutex::new(BTreeMap::new());
    // A panic while it was held left the map as it was.
    let mut known = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(pattern).map_err(|error| {
        TokenizerError::vocabulary(format!(
            "pattern of the pre-tokenizer: {}",
            super::error::excerpt(&error.to_string())
        ))
    })?;
    Ok(known.entry(pattern).or_insert(regex).clone())
}

struct Stage {
    pattern: Regex,
    /// The pattern ends in `|\s+`, whose match gives its last character back before a word.
    gives_back: bool,
    /// The pattern takes white space that ends in a line break by `\s*[\r\n]+`; that gives nothing back.
    breaks_lines: bool,
}

impl Stage {
    fn new(pattern: &'static str) -> Result<Self, TokenizerError> {
        Ok(Self {
            pattern: compiled(pattern)?,
            gives_back: pattern.ends_with(r"|\s+"),
            breaks_lines: pattern.ends_with(r"|\s*[\r\n]+|\s+"),
        })
    }

    fn cut<'t>(&self, text: &'t str, words: &mut Vec<&'t str>) {
        let mut rest = 0;
        while let Some(found) = self.pattern.find_at(text, rest) {
            let mut end = found.end();
            if self.gives_back
                && end < text.len()
                && let Some(last) = found.as_str().chars().next_back()
                && last.len_utf8() < found.len()
                && found.as_str().chars().all(char::is_whitespace)
                && !(self.breaks_lines && matches!(last, '\r' | '\n'))
            {
                end -= last.len_utf8();
            }
            if found.start() > rest {
                words.push(&text[rest..found.start()]);
            }
            words.push(&text[found.start()..end]);
            rest = end;
        }
        if rest < text.len() {
            words.push(&text[rest..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let words: Vec<String> =
            PreTokenizer::named(name).expect("a known name").split(text).into_iter().map(str::to_owned).collect();
        assert_eq!(words.concat(), text, "{name} loses text");
        words
    }

    #[test]
    fn every_rule_compiles_and_keeps_the_text() {
        let text = "I'll  say\t\r\n  \"héllo\" 12345 times… 你好，世界\u{3000}🤦🏼‍♂️ e\u{301}\n\n x ";
        for name in RULES.iter().flat_map(|rule| rule.names) {
            assert!(words(name, text).len() > 5, "{name}");
            assert_eq!(words(name, ""), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        assert_eq!(words("gpt-2", "a   b \n c\n"), ["a", "  ", " b", " \n", " c", "\n"]);
        assert_eq!(words("llama-bpe", "a   b \n c\n"), ["a", "  ", " b", " \n", " c", "\n"]);
        assert_eq!(words("llama-bpe", "x \n\n   "), ["x", " \n\n", "   "]);
        assert_eq!(words("gpt-2", "x\n\ny"), ["x", "\n", "\n", "y"]);
        assert_eq!(words("qwen2", "x\n\ny"), ["x", "\n\n", "y"]);
    }

    #[test]
    fn digits_group_by_family() {
        assert_eq!(words("llama-bpe", "12345"), ["123", "45"]);
        assert_eq!(words("qwen2", "123"), ["1", "2", "3"]);
        assert_eq!(words("gpt-2", " 12345"), [" 12345"]);
        assert_eq!(words("smollm", "a12"), ["a", "1", "2"]);
        assert_eq!(words("default", "a12345"), ["a", "123", "45"]);
    }

    #[test]
    fn contractions_and_case() {
        assert_eq!(words("gpt-2", "I'LL don't"), ["I", "'", "LL", " don", "'t"]);
        assert_eq!(words("qwen2", "I'LL don't"), ["I", "'LL", " don", "'t"]);
        assert_eq!(words("gpt-4o", "HelloWorld's"), ["Hello", "World's"]);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let message = PreTokenizer::named("gpt-9").err().expect("an error").to_string();
        assert!(message.contains("`gpt-9`") && message.contains("llama-bpe") && message.contains("qwen2"), "{message}");
    }

    #[test]
    fn long_runs_take_linear_time() {
        let started = std::time::Instant::now();
        for name in RULES.iter().flat_map(|rule| rule.names) {
            for unit in [" ", "A", "\n", "'", "一", " \n"] {
                let text = unit.repeat(20_000);
                assert!(!words(name, &text).is_empty());
            }
        }
        assert!(started.elapsed().as_secs() < 60, "took {:?}", started.elapsed());
    }
}
