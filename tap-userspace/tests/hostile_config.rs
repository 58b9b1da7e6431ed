//! Configurations that mean harm: each is refused, or read, within a bounded time and 64 MiB. The
//! daemon itself reads them, in a process of its own that the kernel measures. A process of their own
//! for this test too: what a child's parent took until then counts as the child's.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Most memory that a configuration may take while it is read.
const MEMORY_KIB: i64 = 64 << 10;
/// A hang, whatever the machine has to do besides; what is meant is 1 s.
const HANG: Duration = Duration::from_secs(60);

struct Measured {
    code: i32,
    peak_kib: i64,
    took: Duration,
    said: String,
}

/// `tap config validate` of a file.
fn validate(path: &Path, home: &Path) -> Measured {
    let log = home.join("said");
    let out = File::create(&log).unwrap();
    let began = Instant::now();
    #[expect(clippy::zombie_processes, reason = "wait4(2) waits for it, and measures")]
    let child = Command::new(env!("CARGO_BIN_EXE_tap"))
        .args(["config", "validate"])
        .arg(path)
        .env_clear()
        .env("SELF", "x${env:SELF}")
        .env("TWICE", "${env:TWICE} ${env:TWICE}")
        .env("LIST", "['${env:LIST}', '${env:LIST}']")
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap();
    let pid = child.id().cast_signed();
    let (mut status, mut killed) = (0, false);
    // SAFETY: the structure holds numbers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers lead to what the kernel writes, and the child is this process's own.
        let ended = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) };
        assert!(ended >= 0, "{}", std::io::Error::last_os_error());
        if ended == pid {
            break;
        }
        if began.elapsed() > HANG && !killed {
            killed = true;
            // SAFETY: a system call without pointers, on a child that was not waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    assert!(!killed, "{} hangs", path.display());
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 };
    let said = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    Measured { code, peak_kib: usage.ru_maxrss, took, said }
}

/// Writes `times` times the same between two texts.
fn repeated(path: &Path, before: &str, piece: &str, times: usize, after: &str) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(before.as_bytes()).unwrap();
    for _ in 0..times {
        file.write_all(piece.as_bytes()).unwrap();
    }
    file.write_all(after.as_bytes()).unwrap();
    file.flush().unwrap();
}

#[test]
fn hostile_configurations_are_refused_in_bounded_time_and_memory() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = home.join("tap.yaml");
    let write = |text: &str| fs::write(&path, text).unwrap();
    let itself = format!("a: [{0}, {0}]\n", format_args!("'${{file:{}}}'", path.display()));
    let bomb = |items: &str| {
        let mut bomb = format!("a0: &a0 {items}\n");
        for level in 1..200 {
            let below = vec![format!("*a{}", level - 1); 9].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        bomb
    };
    let fifo = home.join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let fifo_within = format!("trace: {{ key: '${{file:{}}}' }}\n", fifo.display());
    let many_rules = |rule: &str, count| {
        repeated(&path, "capture:\n  include:\n", &format!("  - {rule}\n"), count, "");
    };
    // What is written, and words of what is said.
    #[allow(clippy::type_complexity, reason = "name, what writes it, what is said")]
    let cases: Vec<(&str, Box<dyn Fn() + '_>, &str)> = vec![
        ("brackets", Box::new(|| repeated(&path, "a: ", "[", 900_000, "")), "limit exceeded"),
        ("braces", Box::new(|| repeated(&path, "", "{a: ", 200_000, "")), "limit exceeded"),
        ("dashes", Box::new(|| repeated(&path, "", "- ", 400_000, "a")), "within one another"),
        ("questions", Box::new(|| repeated(&path, "", "? ", 400_000, "a")), ""),
        ("open quote", Box::new(|| repeated(&path, "a: \"", "b", 1_000_000, "")), "not YAML"),
        ("long scalar", Box::new(|| repeated(&path, "a: ", "b", 1_000_000, "")), "unknown field"),
        ("long key", Box::new(|| repeated(&path, "", "b", 1_000_000, ": 1")), ""),
        (
            "lines of text",
            Box::new(|| repeated(&path, "a:\n", "  b\n", 250_000, "")),
            "unknown field",
        ),
        ("comments", Box::new(|| repeated(&path, "", "# b\n", 250_000, "a: 1")), "unknown field"),
        ("line ends", Box::new(|| repeated(&path, "", "\n", 1_000_000, "a: 1")), "unknown field"),
        ("tabs", Box::new(|| repeated(&path, "a:", "\t", 1_000_000, "")), ""),
        (
            "escapes",
            Box::new(|| repeated(&path, "a: \"", "\\U0001F600", 100_000, "\"")),
            "unknown field",
        ),
        ("folded", Box::new(|| repeated(&path, "a: >\n", "\n x\n", 250_000, "")), "unknown field"),
        ("anchors", Box::new(|| repeated(&path, "", "- &a x\n", 140_000, "")), "values"),
        (
            "aliases",
            Box::new(|| repeated(&path, "a: &a [x,x,x,x,x,x]\nb:\n", "- *a\n", 190_000, "")),
            "aliases counted",
        ),
        ("bomb", Box::new(|| write(&bomb("[x, x, x, x, x, x, x, x, x]"))), "aliases counted"),
        ("bomb of maps", Box::new(|| write(&bomb("{a: x, b: x}"))), "aliases counted"),
        ("long bomb", Box::new(|| write(&bomb(&"x".repeat(900_000)))), "MiB of text"),
        (
            "merges",
            Box::new(|| repeated(&path, "a: &a {b: c}\nd:\n", "  <<: *a\n", 100_000, "")),
            "values",
        ),
        (
            "keys",
            Box::new(|| {
                let mut file = BufWriter::new(File::create(&path).unwrap());
                (0..4900).for_each(|n| writeln!(file, "key{n}: 1").unwrap());
            }),
            "20 mistakes",
        ),
        ("documents", Box::new(|| repeated(&path, "", "---\n", 250_000, "")), "second document"),
        ("tags", Box::new(|| repeated(&path, "", "- !t x\n", 100_000, "")), "no tag"),
        ("no text", Box::new(|| fs::write(&path, [0xff, 0xfe, 0]).unwrap()), "no UTF-8"),
        ("zeros", Box::new(|| repeated(&path, "", "\0", 1_000_000, "")), ""),
        (
            "100 MB",
            Box::new(|| File::create(&path).unwrap().set_len(100_000_000).unwrap()),
            "longer than 1 MiB",
        ),
        ("million rules", Box::new(|| many_rules("port: 443", 1_000_000)), "longer than 1 MiB"),
        ("50,000 rules", Box::new(|| many_rules("port: 443", 50_000)), "values"),
        ("wide rules", Box::new(|| many_rules("port: 1-65535", 3_000)), "ports"),
        ("3,000 prefixes", Box::new(|| many_rules("cidr: 10.0.0.0/8", 3_000)), "prefixes"),
        ("wrong rules", Box::new(|| many_rules("port: 0", 3_000)), "mistakes"),
        (
            "conditions",
            Box::new(|| {
                let rule = "  - { condition: 'request.method.matches(\"(a+)+$\")', level: full }\n";
                repeated(&path, "http_capture:\n  rules:\n", rule, 1_900, "");
            }),
            "rules",
        ),
        (
            "filters",
            Box::new(|| {
                let before = "processors:\n  filter:\n    traces:\n      span:\n";
                repeated(&path, before, "      - attributes[\"a\"] == 1\n", 9_900, "");
            }),
            "valid",
        ),
        (
            "deep condition",
            Box::new(|| {
                let condition = format!("{}true{}", "(".repeat(400), ")".repeat(400));
                write(&format!(
                    "http_capture: {{ rules: [{{ condition: '{condition}', level: full }}] }}\n"
                ));
            }),
            "",
        ),
        ("variables", Box::new(|| repeated(&path, "a: '", "${env:NO:-x}", 80_000, "'")), "64 KiB"),
        (
            "lists of variables",
            Box::new(|| repeated(&path, "a:\n", "- ${env:NO:-x}\n", 9_900, "")),
            "hold itself",
        ),
        ("of itself", Box::new(|| write("a: ${env:SELF}\n")), "hold itself"),
        ("twice itself", Box::new(|| write("a: ${env:TWICE}\n")), "hold itself"),
        ("lists of itself", Box::new(|| write("a: ${env:LIST}\n")), ""),
        ("file of itself", Box::new(|| write(&itself)), ""),
        (
            "open variables",
            Box::new(|| repeated(&path, "a: '", "${", 500_000, "'")),
            "unknown field",
        ),
        (
            "closed variables",
            Box::new(|| repeated(&path, "a: '", "$}", 500_000, "'")),
            "unknown field",
        ),
        (
            "escaped variables",
            Box::new(|| repeated(&path, "a: '", "$${a}", 200_000, "'")),
            "unknown field",
        ),
        ("dollars", Box::new(|| repeated(&path, "a: '", "$", 999_000, "{a}'")), ""),
        ("device within", Box::new(|| write("trace: { key: '${file:/dev/zero}' }\n")), "no file"),
        ("pipe within", Box::new(|| write(&fifo_within)), "no file"),
    ];
    let mut wrong = Vec::new();
    let mut judge = |name: &str, path: &Path, words: &str| {
        let it = validate(path, home);
        println!("{name:<20} {:>5} ms {:>6} KiB  {}", it.took.as_millis(), it.peak_kib, it.code);
        let code = if words == "valid" { 0 } else { 2 };
        if it.code != code || it.peak_kib > MEMORY_KIB || !it.said.contains(words) {
            let said: String = it.said.chars().take(300).collect();
            wrong.push(format!("{name}: {} {} KiB: {said}", it.code, it.peak_kib));
        }
    };
    for (name, write, words) in &cases {
        write();
        judge(name, &path, words);
    }
    for (name, path) in
        [("pipe", fifo), ("device", PathBuf::from("/dev/zero")), ("folder", home.to_owned())]
    {
        judge(name, &path, "no file");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
