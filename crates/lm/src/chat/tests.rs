use anymlx_formats::gguf::{Array, Value as MetadataValue};

use super::*;

/// Three shapes of template that model files carry: our own wording of the Gemma, ChatML and
/// Llama 2 conversation formats, with the constructs that published templates use.
const GEMMA: &str = "{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must alternate user/assistant') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (prefix if loop.first else '') }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}";

const CHATML: &str = "{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
    {%- endif %}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content.strip() ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}";

fn gemma() -> ChatTemplate {
    ChatTemplate::new(GEMMA, SpecialTexts { bos_token: "<bos>", eos_token: "<eos>" }).expect("a template")
}

fn render(source: &str) -> Result<String, ChatError> {
    let messages = [Message::new("user", " Hello, world ")];
    ChatTemplate::new(source, SpecialTexts { bos_token: "<s>", eos_token: "</s>" })?
        .render(&messages, RenderOptions { add_generation_prompt: true })
}

#[test]
fn gemma_turns() {
    let messages = [
        Message::new("system", "Be kind."),
        Message::new("user", " Hi! \n"),
        Message::new("assistant", "Hello."),
        Message::new("user", "<b> & {{ 1 }}"),
    ];
    let prompt = gemma().render(&messages, RenderOptions { add_generation_prompt: true }).expect("a prompt");
    let expected = "<bos><start_of_turn>user\nBe kind.\n\nHi!<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n\
                    <start_of_turn>user\n<b> & {{ 1 }}<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(prompt, expected);
    let closed = gemma().render(&messages, RenderOptions::default()).expect("a prompt");
    assert_eq!(closed, expected.strip_suffix("<start_of_turn>model\n").expect("the generation prompt"));
}

#[test]
fn chatml_turns_with_trimmed_blocks() {
    assert_eq!(
        render(CHATML).expect("a prompt"),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello, world<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn python_methods_macros_namespaces_and_loop_controls() {
    let source = "{% macro shout(text) %}{{ text.upper() }}{% endmacro %}\
        {% set ns = namespace(found=false) %}\
        {% for n in range(10) %}{% if n == 3 %}{% set ns.found = true %}{% break %}{% endif %}{{ n }}{% endfor %}\
        {{ ns.found }} {{ shout(messages[0].content.strip()).split(',')[0] }} {{ messages[0].items()|list|length }} \
        {{ messages[0].get('name', 'none') }} {{ tools is none }} {{ 'x'.startswith('x') }} {{ {'a': [1, true]}|tojson }}\
        {{ eos_token }}";
    assert_eq!(render(source).expect("a prompt"), "012True HELLO 2 none True True {\"a\": [1, true]}</s>");
}

#[test]
fn json_is_written_as_python_does() {
    let source =
        r#"{{ {'é<': ["a\"\\\n\t/", 1.5, none, []], 'b': {}} | tojson }} {{ [1, {'a': 'ü'}] | tojson(indent=2) }}"#;
    let expected = "{\"é<\": [\"a\\\"\\\\\\n\\t/\", 1.5, null, []], \"b\": {}} [\n  1,\n  {\n    \"a\": \"ü\"\n  }\n]";
    assert_eq!(render(source).expect("a prompt"), expected);
}

#[test]
fn a_refusal_says_what_the_template_says() {
    let messages = [Message::new("assistant", "first")];
    let error = gemma().render(&messages, RenderOptions::default()).expect_err("a refusal");
    assert_eq!(error, ChatError::Refused { message: "roles must alternate user/assistant".to_owned() });
    // Through a macro, the refusal is the cause of another error.
    let nested = "{% macro check() %}{{ raise_exception('no') }}{% endmacro %}{{ check() }}";
    assert_eq!(render(nested), Err(ChatError::Refused { message: "no".to_owned() }));
}

#[test]
fn broken_templates_name_the_line() {
    for (source, line) in
        [("a\n{% if %}", 2), ("{{ 1 +", 1), ("\n\n{% for x in messages %}", 3), ("a\n{{ messages.x.y }}", 2)]
    {
        match render(source) {
            Err(ChatError::Template { line: Some(found), message }) => {
                assert_eq!(found, line, "{source:?}");
                assert!(!message.is_empty());
            }
            other => panic!("{source:?} gave {other:?}"),
        }
    }
    assert!(matches!(render("{{ nothing() }}"), Err(ChatError::Template { .. })));
    assert!(matches!(render("{% include '/etc/passwd' %}"), Err(ChatError::Template { .. })));
}

#[test]
fn plus_adds_numbers_texts_and_lists() {
    for (source, expected) in [
        (
            "{% set a = 1 %}{{ a + 2 }} {{ a + 2.5 }} {{ a + true }} {{ a + 9223372036854775807 }}",
            "3 3.5 2 9223372036854775808",
        ),
        ("{% set a = 'x' %}{{ a + 'y' + a }}", "xyx"),
        ("{% set a = [1] %}{% set b = a + ['y'] + a %}{{ b }}{{ b[1] }}{{ b | length }}", "[1, 'y', 1]y3"),
        ("{% set a = (1,) %}{{ a + (2,) }}", "(1, 2)"),
        ("{% set a = range(2) %}{% for n in a + [5] %}{{ n }}{% endfor %}", "015"),
        ("{% set a = [1, 2] %}{{ a | sum }} {{ a | sum(start=3) }} {{ [{'n': 4}] | sum(attribute='n') }}", "3 6 4"),
        ("{% macro f(n) %}{{ n + 1 }}{% endmacro %}{{ f(2) }}", "3"),
    ] {
        assert_eq!(render(source).expect(source), expected, "{source}");
    }
    for source in ["{% set a = 1 %}{{ a + 'x' }}", "{% set a = [] %}{{ a + none }}", "{% set a = (1,) %}{{ a + [1] }}"]
    {
        assert!(matches!(render(source), Err(ChatError::Template { line: Some(1), .. })), "{source}");
    }
}

#[test]
fn hostile_templates_end_soon() {
    let deep = "(".repeat(100_000);
    let cases = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for n in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for n in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ messages[0].content.replace('', 'x' * 100000).replace('x', 'y' * 100000) }}",
        "{{ ('a' * 100000).split('') | join('b' * 100000) }}",
        "{{ ('b' * 100000).join(('a' * 100000)|list) }}",
        "{{ 'x'.join([('a' * 100000)] * 100000) }}",
        "{{ '{:>1000000000}'.format('x') }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '%([1] 0\u{fffd}0d' | format(1) }}",
        "{{ '\\n' * 100000 | indent(1000000000) }}",
        "{{ ('\\n' * 100000) | indent(100000, true) }}",
        "{{ ('a,' * 1000000).split(',') | batch(1, 'x' * 1000) | list | length }}{{ 1 // 0 }}",
        "{{ [1] | slice(1000000000) | list }}",
        "{% set s = 'a' * 1000000 %}{% for n in range(99999) %}{{ s.count('b') }}{{ s.strip('a') }}{% endfor %}",
        "{% set s = [1] * 100000 %}{% for n in range(99999) %}{{ s.count(2) }}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for n in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for n in range(64) %}{% set ns.x = [ns.x, ns.x] | sum(start=[]) %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for n in range(64) %}{% set ns.x = ns.x | chain(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=(1, 2)) %}{% for n in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for n in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ (['x' * 100000] * 100000) | sum(start='') }}",
        "{{ [1] + [2] * 1000000000000 }}",
        "{{ messages | tojson(indent=1000000000) }}",
        "{{ ([1] * 100000000) | tojson }}",
        "{{ 10 ** 400000000 }}",
        "{{ range(1000000000000) | list }}",
        "{% set ns = namespace(x=[]) %}{% for n in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    ];
    let parsed = format!("{{{{ {deep} }}}}");
    for source in cases.into_iter().chain([parsed.as_str()]) {
        let started = std::time::Instant::now();
        let shown: String = source.chars().take(60).collect();
        eprintln!("{shown}");
        match render(source) {
            Err(ChatError::Template { message, .. }) if message.contains("panicked") => panic!("{shown}: {message}"),
            Err(ChatError::OverLimit { .. } | ChatError::Template { .. }) => {}
            other => panic!("{shown} gave {:?}", other.map(|text| text.len())),
        }
        assert!(started.elapsed().as_secs() < 20, "{shown} took {:?}", started.elapsed());
    }
    let long = "x".repeat(MAX_SOURCE + 1);
    assert!(matches!(render(&long), Err(ChatError::OverLimit { what: "its length", .. })));
}

#[test]
fn long_conversations_are_within_the_limits() {
    let turn = "word ".repeat(20_000);
    let messages: Vec<Message> =
        (0..40).map(|n| Message::new(if n % 2 == 0 { "user" } else { "assistant" }, turn.as_str())).collect();
    let prompt = gemma().render(&messages, RenderOptions::default()).expect("a prompt");
    assert!(prompt.len() > 40 * (turn.len() - 1));
    let many: Vec<Message> =
        (0..2_000).map(|n| Message::new(if n % 2 == 0 { "user" } else { "assistant" }, "")).collect();
    assert_eq!(
        gemma().render(&many, RenderOptions::default()).expect("a prompt").matches("<end_of_turn>").count(),
        2_000
    );
}

#[test]
fn read_from_metadata() {
    let mut metadata = Metadata::new();
    assert!(ChatTemplate::from_gguf(&metadata).expect("no error").is_none());
    metadata.insert("tokenizer.chat_template", MetadataValue::String("{{ bos_token }}|{{ eos_token }}".to_owned()));
    metadata.insert("tokenizer.ggml.tokens", MetadataValue::Array(Array::String(["<a>", "<b>"].into_iter().collect())));
    metadata.insert("tokenizer.ggml.bos_token_id", MetadataValue::U32(1));
    metadata.insert("tokenizer.ggml.eos_token_id", MetadataValue::U32(7));
    let template = ChatTemplate::from_gguf(&metadata).expect("a template").expect("is present");
    assert_eq!(template.render(&[], RenderOptions::default()).expect("a prompt"), "<b>|");
    metadata.insert("tokenizer.chat_template", MetadataValue::Bool(true));
    assert!(matches!(ChatTemplate::from_gguf(&metadata), Err(ChatError::Metadata(_))));
}

/// Each of these is printed, compared or dropped without end by an engine that counts shared values once.
#[test]
fn values_that_double_or_hold_themselves_are_refused() {
    let grows = ["[ns.x, ns.x]", "(ns.x, ns.x)", "{1: ns.x, 2: ns.x}", "ns.x|zip(ns.x)", "[ns.x, ns.x]|batch(2)|list"];
    for grown in grows {
        for used in ["{{ ns.x }}", "{{ ns.x == [ns.x] }}", "{{ ns.x|string|length }}", "{{ [ns.x, ns.x]|sort }}", ""] {
            let source = format!(
                "{{% set ns = namespace(x=[1]) %}}{{% for i in range(60) %}}{{% set ns.x = {grown} %}}{{% endfor %}}{used}"
            );
            let error = render(&source).expect_err(&source).to_string();
            assert!(error.contains("not made") || error.contains("steps"), "{source}: {error}");
        }
    }
    let deep = "{% set ns = namespace(x=1) %}{% for i in range(100) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}";
    assert!(render(deep).expect_err("too deep").to_string().contains("nested more than"));
    for cycle in ["{% set ns.x = ns %}", "{% set ns.x = [ns] %}", "{% set ns.x = {'a': ns} %}", "{% set y = [[ns]] %}"]
    {
        let error = render(&format!("{{% set ns = namespace() %}}{cycle}{{{{ ns }}}}")).expect_err(cycle).to_string();
        assert!(error.contains("a namespace cannot"), "{cycle}: {error}");
    }
}

/// Values that make their elements anew each time ask what they are made of for each branch, or as deep as they are nested.
#[test]
fn lazy_values_become_lists() {
    let made = |first: &str, next: &str, times: usize| {
        let source = format!(
            "{{% set ns = namespace({first}) %}}{{% for i in range({times}) %}}{{% set ns.x = {next} %}}{{% endfor %}}{{{{ ns.x }}}}"
        );
        render(&source).expect(&source)
    };
    assert_eq!(made("y=[1]", "ns.x|zip(ns.x)", 64), "[]");
    assert_eq!(made("x=[]", "ns.x|zip(ns.x)", 64), "[]");
    assert_eq!(made("x=[1]", "ns.x * 1", 5000), "[1]");
    assert_eq!(made("x=[1, 2]", "ns.x[0:]", 5000), "[1, 2]");
    assert_eq!(made("x=[1, 2]", "ns.x|reverse", 5001), "[2, 1]");
    assert_eq!(
        render("{% for i in range(3) %}{{ i }}{% endfor %}{{ range(3)|list }}").expect("a text"),
        "012[0, 1, 2]"
    );
}

#[test]
fn macros_that_call_themselves_are_refused() {
    let error = render("{% macro f(n) %}{{ f([n]) }}{% endmacro %}{{ f(0) }}").expect_err("no end").to_string();
    assert!(error.contains("recursion") || error.contains("nested more than"), "{error}");
}

#[test]
fn jumps_reach_what_they_did_before_checks_were_inserted() {
    let source = "{%- macro twice(x, y=[1]) -%}{{ x ~ x ~ y[0] }}{%- endmacro -%}
{%- set ns = namespace(n=0, list=[]) -%}
{%- for i in range(6) if i != 3 -%}
  {%- if i == 1 or i in [4] -%}{%- continue -%}{%- elif i > 4 and not false -%}{{ twice(i, y=[7]) }}{%- break -%}{%- endif -%}
  {%- set ns.n = ns.n + i -%}{%- set ns.list = ns.list + [i] -%}
{%- else -%}none{%- endfor -%}
|{{ ns.n }}|{{ ns.list }}|{{ 'a' if 1 < ns.n < 3 else 'b' }}|{{ twice('z') }}|{% for x in [] %}x{% else %}empty{% endfor %}";
    assert_eq!(render(source).expect("a text"), "557|2|[0, 2]|a|zz1|empty");
}
