//! Headers that announce as much as the bytes that follow could hold.

/// GGUF files with false counts at every level, and with as many small real things as fit.
pub fn gguf(fill: usize) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let header = |tensors: u64, pairs: u64| {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(tensors.to_le_bytes());
        file.extend(pairs.to_le_bytes());
        file
    };
    let key = |file: &mut Vec<u8>, value_type: u32| {
        file.extend(1u64.to_le_bytes());
        file.push(b'k');
        file.extend(value_type.to_le_bytes());
    };
    files.push(("many pairs".to_owned(), [header(0, fill as u64 / 14), vec![0xff; fill]].concat()));
    files.push(("many tensors".to_owned(), [header(fill as u64 / 25, 0), vec![0xff; fill]].concat()));
    for element in 0..=12u32 {
        for depth in 1..=4 {
            let mut file = header(0, fill as u64 / 14);
            key(&mut file, 9);
            for _ in 1..depth {
                file.extend(9u32.to_le_bytes());
                file.extend((fill as u64 / 12).to_le_bytes());
            }
            file.extend(element.to_le_bytes());
            file.extend((fill as u64 / 8).to_le_bytes());
            file.extend(vec![0; fill]);
            files.push((format!("array of {element} at depth {depth}"), file));
        }
    }
    // As many small real things as fit.
    let mut pairs = header(0, 2000);
    for index in 0..2000u32 {
        pairs.extend(2u64.to_le_bytes());
        pairs.extend([b'!' + (index / 90) as u8, b'!' + (index % 90) as u8]);
        pairs.extend(0u32.to_le_bytes());
        pairs.push(1);
    }
    files.push(("real pairs".to_owned(), pairs));
    let mut arrays = header(0, 1);
    key(&mut arrays, 9);
    arrays.extend(9u32.to_le_bytes());
    arrays.extend(2049u64.to_le_bytes());
    for _ in 0..2049 {
        arrays.extend(0u32.to_le_bytes());
        arrays.extend(0u64.to_le_bytes());
    }
    files.push(("real arrays".to_owned(), arrays));
    let mut tensors = header(2000, 0);
    for index in 0..2000u32 {
        tensors.extend(2u64.to_le_bytes());
        tensors.extend([b'!' + (index / 90) as u8, b'!' + (index % 90) as u8]);
        tensors.extend(0u32.to_le_bytes());
        tensors.extend(24u32.to_le_bytes());
        tensors.extend((u64::from(index) * 32).to_le_bytes());
    }
    files.push(("real tensors without data".to_owned(), tensors.clone()));
    tensors.resize(tensors.len() + 2001 * 32, 0);
    files.push(("real tensors".to_owned(), tensors));
    files
}

/// safetensors files with many small entries, true and false.
pub fn safetensors(fill: usize) -> Vec<(String, Vec<u8>)> {
    let file = |json: String, data: usize| {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json.bytes());
        file.resize(file.len() + data, 0);
        file
    };
    let count = fill / 50;
    let entries = |name: &dyn Fn(usize) -> String, bytes: usize| {
        let entry = |index: usize| {
            let start = index * bytes;
            format!(
                "{}:{{\"dtype\":\"U8\",\"shape\":[{bytes}],\"data_offsets\":[{start},{}]}}",
                name(index),
                start + bytes
            )
        };
        format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","))
    };
    vec![
        ("many tensors".to_owned(), file(entries(&|index| format!("\"{index}\""), 1), count)),
        ("many empty tensors".to_owned(), file(entries(&|index| format!("\"{index}\""), 0), 0)),
        ("many equal names".to_owned(), file(entries(&|_| "\"\"".to_owned(), 1), count)),
        ("escaped names".to_owned(), file(entries(&|index| format!("\"\\u00e9{index}\""), 1), count)),
        ("many dimensions".to_owned(), file(format!("{{\"a\":{{\"shape\":[{}1]}}}}", "1,".repeat(fill / 2)), 0)),
        ("long name".to_owned(), file(format!("{{\"{}\":0}}", "a".repeat(fill)), 0)),
        (
            "long type".to_owned(),
            file(format!("{{\"a\":{{\"dtype\":\"{}\",\"shape\":[],\"data_offsets\":[0,0]}}}}", "a".repeat(fill)), 0),
        ),
        ("many pairs".to_owned(), {
            let pairs: Vec<String> = (0..fill / 10).map(|index| format!("\"{index}\":\"\"")).collect();
            file(format!("{{\"__metadata__\":{{{}}}}}", pairs.join(",")), 0)
        }),
        ("deep arrays".to_owned(), file(format!("{{\"a\":{}", "[".repeat(fill)), 0)),
        ("deep objects".to_owned(), file("{\"a\":".repeat(fill / 5), 0)),
    ]
}

/// Indices and configurations with many small entries.
pub fn objects(fill: usize) -> Vec<(String, Vec<u8>)> {
    let list = |entry: &dyn Fn(usize) -> String| (0..fill / 12).map(entry).collect::<Vec<_>>().join(",");
    [
        ("one shard", format!("{{\"weight_map\":{{{}}}}}", list(&|index| format!("\"{index}\":\"m\"")))),
        ("many shards", format!("{{\"weight_map\":{{{}}}}}", list(&|index| format!("\"{index}\":\"m{index}\"")))),
        ("many layers", format!("{{\"quantization\":{{{}}}}}", list(&|index| format!("\"{index}\":true")))),
        ("many layouts", format!("{{\"quantization\":{{{}}}}}", list(&|index| format!("\"{index}\":{{\"bits\":8}}")))),
        ("deep", "{\"quantization\":".repeat(fill / 16)),
        ("deep layers", format!("{{\"quantization\":{}", "{\"a\":".repeat(fill / 5))),
    ]
    .map(|(what, text)| (what.to_owned(), text.into_bytes()))
    .into()
}
