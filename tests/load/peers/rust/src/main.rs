//! The compiled ceiling: hyper and tokio-postgres, one Tokio thread a core. Statements are prepared on each connection
//! when it is opened; requests take the connections in turn, and tokio-postgres pipelines what shares one.
//! Settings: DATABASE_URL, DB_CONNECTIONS, PORT.

use std::convert::Infallible;
use std::env::var;
use std::error::Error;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::server::conn::AddrStream;
use hyper::service::{make_service_fn, service_fn};
use hyper::{body, Body, Method, Request, Response, Server, StatusCode};
use serde::{Deserialize, Serialize, Serializer};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

const COLUMNS: &str = "id, user_id, title, description, completed, version, created_at, updated_at";

struct Connection {
    client: Client,
    get: Statement,
    list: Statement,
    create: Statement,
    toggle: Statement,
}

struct Pool {
    connections: Vec<Connection>,
    turn: AtomicUsize,
}

impl Pool {
    fn next(&self) -> &Connection {
        &self.connections[self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len()]
    }
}

#[derive(Serialize)]
struct Task<'a> {
    id: i64,
    user_id: &'a str,
    title: &'a str,
    description: Option<&'a str>,
    completed: bool,
    version: i32,
    created_at: Instant,
    updated_at: Instant,
}

impl<'a> From<&'a Row> for Task<'a> {
    fn from(row: &'a Row) -> Self {
        Task {
            id: row.get(0),
            user_id: row.get(1),
            title: row.get(2),
            description: row.get(3),
            completed: row.get(4),
            version: row.get(5),
            created_at: row.get(6),
            updated_at: row.get(7),
        }
    }
}

#[derive(Deserialize)]
struct NewTask {
    title: String,
    description: Option<String>,
    #[serde(default)]
    completed: bool,
}

/// A timestamptz: microseconds since 2000-01-01 UTC, written with six decimals, or with none on the full second.
struct Instant(i64);

impl<'a> FromSql<'a> for Instant {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Instant(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
        let z = days + 10_957 + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        if micros == 0 {
            serializer.collect_str(&format_args!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
            ))
        } else {
            serializer.collect_str(&format_args!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
            ))
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(value).expect("a value of plain fields");
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, bytes.len())
        .body(Body::from(bytes))
        .expect("a response of fixed headers")
}

fn fail(status: StatusCode, message: &str) -> Response<Body> {
    #[derive(Serialize)]
    struct ErrorBody<'a> {
        error: &'a str,
    }
    json(status, &ErrorBody { error: message })
}

fn one(status: StatusCode, row: Option<Row>) -> Response<Body> {
    match &row {
        Some(row) => json(status, &Task::from(row)),
        None => fail(StatusCode::NOT_FOUND, "Task not found"),
    }
}

async fn answer(pool: &Pool, request: Request<Body>) -> Result<Response<Body>, tokio_postgres::Error> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    if !(4..=6).contains(&parts.len()) || parts[1] != "api" || parts[3] != "tasks" {
        return Ok(fail(StatusCode::NOT_FOUND, "Not found"));
    }
    let (user, connection) = (parts[2], pool.next());
    let client = &connection.client;
    if parts.len() == 4 {
        return match *request.method() {
            Method::GET => {
                let query = request.uri().query().unwrap_or("");
                let limit = query.split('&').find_map(|pair| pair.strip_prefix("limit="));
                match limit.and_then(|text| i64::from_str(text).ok()).filter(|limit| (1..=1000).contains(limit)) {
                    None => Ok(fail(StatusCode::BAD_REQUEST, "limit must be between 1 and 1000")),
                    Some(limit) => {
                        let rows = client.query(&connection.list, &[&user, &limit]).await?;
                        Ok(json(StatusCode::OK, &rows.iter().map(Task::from).collect::<Vec<_>>()))
                    }
                }
            }
            Method::POST => {
                let new = match body::to_bytes(request.into_body()).await {
                    Ok(bytes) => serde_json::from_slice::<NewTask>(&bytes).ok(),
                    Err(_) => None,
                };
                let Some(new) = new else {
                    return Ok(fail(StatusCode::BAD_REQUEST, "Request body must be valid JSON"));
                };
                let title = new.title.trim();
                if !(1..=255).contains(&title.chars().count()) {
                    return Ok(fail(StatusCode::BAD_REQUEST, "Title must be 1 to 255 characters"));
                }
                let row = client.query_one(&connection.create, &[&user, &title, &new.description, &new.completed]).await?;
                Ok(one(StatusCode::CREATED, Some(row)))
            }
            _ => Ok(fail(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")),
        };
    }
    let Some(id) = i64::from_str(parts[4]).ok().filter(|id| *id > 0) else {
        return Ok(fail(StatusCode::BAD_REQUEST, "Invalid task ID"));
    };
    match (parts.len(), request.method()) {
        (5, &Method::GET) => Ok(one(StatusCode::OK, client.query_opt(&connection.get, &[&user, &id]).await?)),
        (6, &Method::PATCH) if parts[5] == "complete" => {
            Ok(one(StatusCode::OK, client.query_opt(&connection.toggle, &[&user, &id]).await?))
        }
        _ => Ok(fail(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")),
    }
}

async fn open(config: &Config) -> Result<Connection, tokio_postgres::Error> {
    let (client, driver) = config.connect(NoTls).await?;
    tokio::spawn(driver);
    let get = client.prepare(&format!("SELECT {COLUMNS} FROM tasks WHERE user_id = $1 AND id = $2")).await?;
    let list = client.prepare(&format!("SELECT {COLUMNS} FROM tasks WHERE user_id = $1 ORDER BY id DESC LIMIT $2")).await?;
    let create = client
        .prepare(&format!(
            "WITH owner AS (INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO NOTHING) \
             INSERT INTO tasks (user_id, title, description, completed) VALUES ($1, $2, $3, $4) RETURNING {COLUMNS}"
        ))
        .await?;
    let toggle = client
        .prepare(&format!(
            "UPDATE tasks SET completed = NOT completed, version = version + 1, updated_at = clock_timestamp() \
             WHERE user_id = $1 AND id = $2 RETURNING {COLUMNS}"
        ))
        .await?;
    Ok(Connection { client, get, list, create, toggle })
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let config = Config::from_str(&var("DATABASE_URL")?)?;
    let mut connections = Vec::new();
    for _ in 0..usize::from_str(&var("DB_CONNECTIONS")?)? {
        connections.push(open(&config).await?);
    }
    let pool = Arc::new(Pool { connections, turn: AtomicUsize::new(0) });
    let service = make_service_fn(move |_: &AddrStream| {
        let pool = pool.clone();
        async move {
            Ok::<_, Infallible>(service_fn(move |request| {
                let pool = pool.clone();
                async move {
                    Ok::<_, Infallible>(answer(&pool, request).await.unwrap_or_else(|error| {
                        eprintln!("{error}");
                        fail(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
                    }))
                }
            }))
        }
    });
    let address = SocketAddr::from(([127, 0, 0, 1], u16::from_str(&var("PORT")?)?));
    Ok(Server::bind(&address).tcp_nodelay(true).serve(service).await?)
}

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}
