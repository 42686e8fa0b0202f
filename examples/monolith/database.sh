#!/bin/sh
# Makes the application's user and database on the first boot; on every further one there is nothing to do.
set -e
cd /
as_postgres() { runuser -u postgres -- "$@"; }
until as_postgres pg_isready -q; do sleep 0.2; done
[ "$(as_postgres psql -tAc "SELECT 1 FROM pg_roles WHERE rolname = 'shop'")" ] || as_postgres createuser shop
[ "$(as_postgres psql -tAc "SELECT 1 FROM pg_database WHERE datname = 'shop'")" ] || as_postgres createdb -O shop shop
runuser -u shop -- psql -q shop -c "CREATE TABLE IF NOT EXISTS lines (id serial PRIMARY KEY, line text NOT NULL)"
