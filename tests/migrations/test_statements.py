"""What is read from a statement's text is what PostgreSQL's parser reads from it."""
# pglast types every attribute of a node as optional.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalIterable=false
# pyright: reportArgumentType=false, reportReturnType=false

import pytest
from pglast import ast, enums, parse_sql

from service.operations import migrate
from service.operations.migrate import statements
from service.operations.migrate.statements import Thing

TEXTS = [
    "CREATE TABLE a (n int, m text DEFAULT 'x,y)', CONSTRAINT k PRIMARY KEY (n), CHECK (n > (1 + 2)))",
    "create table if not exists S.A (n int)",
    'CREATE UNLOGGED TABLE "A b" ("C d" int)',
    "CREATE /* , ( */ TABLE a ( -- )\n n numeric(10, 2), m int[] )",
    "CREATE TABLE a AS SELECT 1",
    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY s.t USING btree (lower(a), b) WHERE a > ','",
    "CREATE INDEX ON t (a)",
    "CREATE SEQUENCE s.q",
    "CREATE OR REPLACE VIEW v AS SELECT 1",
    "CREATE MATERIALIZED VIEW v AS SELECT 1",
    "CREATE OR REPLACE FUNCTION f(a int, b text DEFAULT '') RETURNS int LANGUAGE sql AS $body$ SELECT 1; $body$",
    "CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE mood AS ENUM ('a')",
    "CREATE DOMAIN d AS text",
    "CREATE SCHEMA s",
    "CREATE EXTENSION IF NOT EXISTS e",
    "CREATE TRIGGER tr AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE POLICY p ON t USING (true)",
    "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
    "CREATE TEMPORARY TABLE a (n int)",
    "ALTER TABLE ONLY s.t ADD COLUMN a int, ADD b text DEFAULT 'x, y', DROP COLUMN c, ADD CONSTRAINT k CHECK (a>0)",
    "ALTER TABLE IF EXISTS t DROP CONSTRAINT k CASCADE",
    "ALTER TABLE t ALTER COLUMN a TYPE bigint USING a::bigint",
    "ALTER TABLE t RENAME COLUMN a TO b",
    "ALTER TABLE t RENAME TO u",
    "DROP TABLE IF EXISTS a, s.b CASCADE",
    "DROP INDEX CONCURRENTLY i",
    "DROP TRIGGER tr ON t",
    "DROP MATERIALIZED VIEW v",
    "SET lock_timeout = '500ms'",
    "INSERT INTO t (a) VALUES ('CREATE TABLE x (n int)')",
    "COMMENT ON TABLE t IS 'DROP TABLE t'",
    "DO $$ BEGIN DROP TABLE t; END $$",
    "GRANT SELECT ON t TO r",
]  # fmt: skip
MINE = [text for migration in migrate.read() for text in (*migration.statements, *(migration.rollback or ()))]


def parsed_made(text: str) -> set[tuple[str, str]]:
    """Kind and name of what the statement itself makes, by PostgreSQL's parser."""
    stmt = parse_sql(text)[0].stmt
    match stmt:
        case ast.CreateStmt() if stmt.relation.relpersistence != "t":
            columns = {("column", e.colname) for e in stmt.tableElts or () if isinstance(e, ast.ColumnDef)}
            named = {
                ("constraint", e.conname) for e in stmt.tableElts or () if isinstance(e, ast.Constraint) and e.conname
            }
            return {("table", stmt.relation.relname), *columns, *named}
        case ast.CreateTableAsStmt():
            kind = "view" if stmt.objtype == enums.ObjectType.OBJECT_MATVIEW else "table"
            return {(kind, stmt.into.rel.relname)}
        case ast.IndexStmt() if stmt.idxname:
            return {("index", stmt.idxname)}
        case ast.CreateSeqStmt():
            return {("sequence", stmt.sequence.relname)}
        case ast.ViewStmt():
            return {("view", stmt.view.relname)}
        case ast.CreateFunctionStmt():
            return {("function", stmt.funcname[-1].sval)}
        case ast.CreateEnumStmt():
            return {("type", stmt.typeName[-1].sval)}
        case ast.CreateDomainStmt():
            return {("type", stmt.domainname[-1].sval)}
        case ast.CreateSchemaStmt():
            return {("schema", stmt.schemaname)}
        case ast.CreateExtensionStmt():
            return {("extension", stmt.extname)}
        case ast.CreateTrigStmt():
            return {("trigger", stmt.trigname)}
        case ast.CreatePolicyStmt():
            return {("policy", stmt.policy_name)}
        case ast.RuleStmt():
            return {("rule", stmt.rulename)}
        case ast.AlterTableStmt():
            added: set[tuple[str, str]] = set()
            for command in stmt.cmds:
                if command.subtype == enums.AlterTableType.AT_AddColumn:
                    added.add(("column", command.def_.colname))
                elif command.subtype == enums.AlterTableType.AT_AddConstraint and command.def_.conname:
                    added.add(("constraint", command.def_.conname))
            return added
        case _:
            return set()


def parsed_dropped(text: str) -> set[str]:
    stmt = parse_sql(text)[0].stmt
    match stmt:
        case ast.DropStmt():
            return {(name[-1] if isinstance(name, tuple) else name).sval for name in stmt.objects}
        case ast.AlterTableStmt():
            kinds = (enums.AlterTableType.AT_DropColumn, enums.AlterTableType.AT_DropConstraint)
            return {command.name for command in stmt.cmds if command.subtype in kinds}
        case _:
            return set()


@pytest.mark.parametrize("text", [*TEXTS, *MINE], ids=lambda text: " ".join(text.split())[:50])
def test_what_a_statement_makes_and_drops(text: str) -> None:
    # What comes along (a key's index, an identity's sequence) is no part of the parse tree.
    made = {(thing.kind, thing.name) for thing in statements.made(text)}
    along = {
        (thing.kind, thing.name)
        for thing in statements.made(text)
        if thing.kind in ("index", "sequence")
        and not text.lstrip().upper().startswith(("CREATE SEQ", "CREATE U", "CREATE I"))
    }
    assert made - along == parsed_made(text)
    assert {thing.name for thing in statements.dropped(text)} == parsed_dropped(text)


def test_what_comes_along_is_made_too() -> None:
    made = statements.made(
        "CREATE TABLE t (a bigserial, b int GENERATED ALWAYS AS IDENTITY, CONSTRAINT k PRIMARY KEY (a), "
        "c int CONSTRAINT u UNIQUE)"
    )
    assert {Thing("sequence", "t_a_seq"), Thing("sequence", "t_b_seq")} <= set(made)
    assert {Thing("index", "k", "t"), Thing("index", "u", "t")} <= set(made)
