//! The output of secrets by commands that create them: one that cannot be written, and who can read it.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::{Output, Stdio};
use std::thread;

use tokend::api::proto::Verdict;

use super::databases::Database;
use super::program::{PROGRAM, Running, TestDir, printed, run, run_into, run_of, text};
use super::{commands, rpc};

/// A server, a database that has no root token yet, and the arguments of each command that creates
/// a secret.
struct Scene {
    test_dir: TestDir,
    _server: Running,
    address: String,
    root: String,
    url: String,
    keys: String,
}

impl Scene {
    fn new() -> Self {
        let test_dir = TestDir::new();
        let mut server = test_dir.serve();
        let address = server.ready();
        let root = test_dir.root_secret();
        let (url, keys) = (Database::new().url(), printed(run(&["keygen"], &[], "")));
        Self { test_dir, _server: server, address, root, url, keys }
    }

    fn variables(&self) -> [(&str, &str); 4] {
        [
            ("TOKEND_ADDRESS", &self.address),
            ("TOKEND_SECRET", &self.root),
            ("DATABASE_URL", &self.url),
            ("TOKEND_KEYS", &self.keys),
        ]
    }

    fn create(&self) -> String {
        let create = ["token", "create", "--user", "ada", "--name", "n", "--ttl", "1h"];
        printed(run(&create, &self.variables(), "")).trim_end().to_owned()
    }

    /// Returns the full arguments of a command that creates a secret.
    fn line(&self, command: &str) -> Vec<String> {
        let more = match command {
            "token create" => "--user ada --name n --ttl 1h".to_owned(),
            "token rotate" => self.create()[5..27].to_owned(),
            "bootstrap" | "keygen" => String::new(),
            other => panic!("{other} makes a secret, and is not tried"),
        };
        format!("{command} {more}").split_ascii_whitespace().map(str::to_owned).collect()
    }

    fn tokens(&self) -> usize {
        printed(run(&["token", "list", "--json"], &self.variables(), "")).lines().count()
    }
}

fn texts(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// Runs a command in a shell that first changes its process.
fn within(shell: &str, line: &[&str], variables: &[(&str, &str)]) -> Output {
    let script = format!("{shell}; exec \"$0\" \"$@\"");
    run_of("/bin/sh", &[&["-c", &*script, PROGRAM], line].concat(), variables, "")
}

#[test]
fn a_secret_that_cannot_be_written_is_an_error_and_not_lost() {
    let scene = Scene::new();
    let variables = scene.variables();
    let exposed = scene.test_dir.file("exposed", "", 0o644);
    for command in commands::with("output") {
        let line = || scene.line(&command);
        let refused = [
            run_into(&texts(&line()), &variables, File::options().write(true).open("/dev/null").unwrap()),
            within("exec >&-", &texts(&line()), &variables),
            run_into(&texts(&line()), &variables, File::options().append(true).open(&exposed).unwrap()),
        ];
        for output in refused {
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command}: {message}");
            assert!(
                message.contains("nothing was done") && message.contains("--output"),
                "{command}: {message}"
            );
        }
        let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
        let gone = || Stdio::from(std::io::pipe().unwrap().1);
        for output in [full, gone] {
            let line = line();
            let lost = run_into(&texts(&line), &variables, output());
            let message = text(&lost.stderr);
            assert_eq!(lost.status.code(), Some(1), "{command}: {message}");
            if !commands::with("request-id").contains(&command) {
                // There is nothing to recover: no root token was created, or the key is in no keyring.
                continue;
            }
            let (_, id) = message.split_once("--request-id ").unwrap();
            let again = [&texts(&line), &["--request-id", &id[..36]][..]].concat();
            let secret = printed(run(&again, &variables, ""));
            assert_eq!(rpc::verdict(&scene.address, &scene.root, secret.trim_end()), Verdict::MissingScope);
        }
        let last = printed(run(&texts(&line()), &variables, ""));
        assert!(last.lines().count() == 1 && last.len() > 40, "{command}");
    }
    assert_eq!(fs::read_to_string(exposed).unwrap(), "");
}

#[test]
fn a_file_for_a_secret_is_new_and_private() {
    let scene = Scene::new();
    let variables = scene.variables();
    let taken = scene.test_dir.file("taken", "kept\n", 0o600);
    let link = scene.test_dir.path().join("link");
    symlink(scene.test_dir.path().join("behind"), &link).unwrap();
    for command in commands::with("output") {
        let words = scene.line(&command);
        let before = scene.tokens();
        let absent = scene.test_dir.path().join("absent/secret");
        for path in [&*taken, link.to_str().unwrap(), absent.to_str().unwrap()] {
            let refused = run(&[&texts(&words), &["--output", path][..]].concat(), &variables, "");
            let message = text(&refused.stderr);
            assert_eq!(
                (refused.status.code(), &*refused.stdout),
                (Some(1), &b""[..]),
                "{command}: {message}"
            );
            assert!(message.contains("nothing was done"), "{command}: {message}");
        }
        assert_eq!((scene.tokens(), scene.test_dir.path().join("behind").exists()), (before, false));

        let path = scene.test_dir.path().join(command.replace(' ', "-"));
        let output = ["--output", path.to_str().unwrap()];
        let made = within("umask 0", &[&texts(&words), &output[..]].concat(), &variables);
        assert_eq!(printed(made), "", "{command}");
        let file = fs::metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o777, file.len() > 40), (0o600, true), "{command}");
    }
    assert_eq!(fs::read_to_string(taken).unwrap(), "kept\n");
    let secret = fs::read_to_string(scene.test_dir.path().join("token-create")).unwrap();
    assert_eq!(rpc::verdict(&scene.address, &scene.root, secret.trim_end()), Verdict::MissingScope);

    // A refused command leaves no empty file behind.
    let path = scene.test_dir.path().join("never");
    let wrong = [
        "token",
        "create",
        "--user",
        "a\u{7}",
        "--name",
        "n",
        "--ttl",
        "1h",
        "--output",
        path.to_str().unwrap(),
    ];
    assert_eq!(run(&wrong, &variables, "").status.code(), Some(1));
    assert!(!path.exists());
}

#[test]
fn a_lost_response_can_be_requested_again_with_the_request_id() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let peer = thread::spawn(move || {
        // Reads the request, and closes the connection.
        for connection in listener.incoming().take(2) {
            let _ = connection.unwrap().read(&mut [0; 4096]);
        }
    });
    let secret = fake_secret();
    let variables = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*secret)];
    let id = &secret[5..27];
    let create = ["token", "create", "--user", "ada", "--name", "n", "--ttl", "1h", "--request-id"];
    let request_id = "5f0c9a52-3c1e-4d8a-9f5b-0d6c2f1e7a43";

    // Also if nothing listens any more at the last try.
    let lost = run(&[&create[..], &[request_id]].concat(), &variables, "");
    peer.join().unwrap();
    let never = run(&["token", "rotate", id, "--grace-period", "1m"], &variables, "");

    for output in [&lost, &never] {
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
    }
    let message = text(&lost.stderr);
    assert!(message.contains("not known whether") && message.contains(request_id), "{message}");
    assert!(!text(&never.stderr).contains("not known whether"), "{}", text(&never.stderr));
    assert!(text(&never.stderr).contains("cannot reach a tokend at"), "{}", text(&never.stderr));
}

/// Returns a secret that belongs to no token.
fn fake_secret() -> String {
    use secrecy::ExposeSecret as _;
    use tokend::secret::{Prefix, Secret, TokenId};

    let id = TokenId::from_bytes([7; 16]);
    let secret = Secret::generate(id, &mut tokend::clock::randomness()).unwrap();
    secret.render(&Prefix::default()).expose_secret().to_owned()
}
