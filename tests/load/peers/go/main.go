// The peer in Go: net/http and a pgx pool, as the standard library and pgx's documentation would have it. pgx prepares
// each statement on first use by itself. Settings: DATABASE_URL, DB_CONNECTIONS, PORT.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const columns = "id, user_id, title, description, completed, version, created_at, updated_at"

const (
	getSQL    = "SELECT " + columns + " FROM tasks WHERE user_id = $1 AND id = $2"
	listSQL   = "SELECT " + columns + " FROM tasks WHERE user_id = $1 ORDER BY id DESC LIMIT $2"
	createSQL = "WITH owner AS (INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO NOTHING) " +
		"INSERT INTO tasks (user_id, title, description, completed) VALUES ($1, $2, $3, $4) RETURNING " + columns
	toggleSQL = "UPDATE tasks SET completed = NOT completed, version = version + 1, updated_at = clock_timestamp() " +
		"WHERE user_id = $1 AND id = $2 RETURNING " + columns
)

type task struct {
	ID          int64   `json:"id"`
	UserID      string  `json:"user_id"`
	Title       string  `json:"title"`
	Description *string `json:"description"`
	Completed   bool    `json:"completed"`
	Version     int32   `json:"version"`
	CreatedAt   instant `json:"created_at"`
	UpdatedAt   instant `json:"updated_at"`
}

type newTask struct {
	Title       string  `json:"title"`
	Description *string `json:"description"`
	Completed   bool    `json:"completed"`
}

// instant is a time that is written in UTC with six decimals, or with none on the full second.
type instant struct{ time.Time }

func (t instant) MarshalJSON() ([]byte, error) {
	layout := `"2006-01-02T15:04:05.000000Z"`
	if t.Nanosecond() == 0 {
		layout = `"2006-01-02T15:04:05Z"`
	}
	return t.UTC().AppendFormat(make([]byte, 0, len(layout)), layout), nil
}

func scan(row pgx.Row) (t task, err error) {
	err = row.Scan(&t.ID, &t.UserID, &t.Title, &t.Description, &t.Completed, &t.Version, &t.CreatedAt.Time, &t.UpdatedAt.Time)
	return t, err
}

type server struct{ pool *pgxpool.Pool }

// ServeHTTP routes /api/{user}/tasks, /api/{user}/tasks/{id} and /api/{user}/tasks/{id}/complete.
func (s server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) < 4 || len(parts) > 6 || parts[1] != "api" || parts[3] != "tasks" {
		fail(w, http.StatusNotFound, "Not found")
		return
	}
	user := parts[2]
	if len(parts) == 4 {
		switch r.Method {
		case http.MethodGet:
			s.list(w, r, user)
		case http.MethodPost:
			s.create(w, r, user)
		default:
			fail(w, http.StatusMethodNotAllowed, "Method not allowed")
		}
		return
	}
	id, err := strconv.ParseInt(parts[4], 10, 64)
	switch {
	case err != nil || id < 1:
		fail(w, http.StatusBadRequest, "Invalid task ID")
	case len(parts) == 5 && r.Method == http.MethodGet:
		t, err := scan(s.pool.QueryRow(r.Context(), getSQL, user, id))
		answer(w, http.StatusOK, t, err)
	case len(parts) == 6 && parts[5] == "complete" && r.Method == http.MethodPatch:
		t, err := scan(s.pool.QueryRow(r.Context(), toggleSQL, user, id))
		answer(w, http.StatusOK, t, err)
	default:
		fail(w, http.StatusMethodNotAllowed, "Method not allowed")
	}
}

func (s server) list(w http.ResponseWriter, r *http.Request, user string) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 1 || limit > 1000 {
		fail(w, http.StatusBadRequest, "limit must be between 1 and 1000")
		return
	}
	rows, err := s.pool.Query(r.Context(), listSQL, user, limit)
	if err != nil {
		answer(w, 0, nil, err)
		return
	}
	defer rows.Close()
	tasks := make([]task, 0, limit)
	for rows.Next() {
		t, err := scan(rows)
		if err != nil {
			answer(w, 0, nil, err)
			return
		}
		tasks = append(tasks, t)
	}
	answer(w, http.StatusOK, tasks, rows.Err())
}

func (s server) create(w http.ResponseWriter, r *http.Request, user string) {
	var new newTask
	if err := json.NewDecoder(r.Body).Decode(&new); err != nil {
		fail(w, http.StatusBadRequest, "Request body must be valid JSON")
		return
	}
	new.Title = strings.TrimSpace(new.Title)
	if length := utf8.RuneCountInString(new.Title); length < 1 || length > 255 {
		fail(w, http.StatusBadRequest, "Title must be 1 to 255 characters")
		return
	}
	t, err := scan(s.pool.QueryRow(r.Context(), createSQL, user, new.Title, new.Description, new.Completed))
	answer(w, http.StatusCreated, t, err)
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// answer writes the value as JSON, or the error.
func answer(w http.ResponseWriter, status int, value any, err error) {
	if errors.Is(err, pgx.ErrNoRows) {
		fail(w, http.StatusNotFound, "Task not found")
		return
	}
	if err != nil {
		log.Print(err)
		fail(w, http.StatusInternalServerError, "Internal server error")
		return
	}
	buffer := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buffer)
	buffer.Reset()
	encoder := json.NewEncoder(buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		log.Print(err)
		fail(w, http.StatusInternalServerError, "Internal server error")
		return
	}
	body := buffer.Bytes()[:buffer.Len()-1] // without Encode's line feed
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

func fail(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"error": message}, nil)
}

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	connections, err := strconv.Atoi(os.Getenv("DB_CONNECTIONS"))
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = int32(connections)
	config.MinConns = int32(connections)
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), server{pool}))
}
