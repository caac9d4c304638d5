#!/bin/sh
# A role and a database for each service whose password is there, as chassis/secrets.py makes it. Run at every start:
# it makes what is missing, so a service that is added later gets its own too.
set -eu

PGPASSWORD=$(cat /run/secrets/password)
export PGPASSWORD PGHOST=postgres PGUSER=postgres PGDATABASE=postgres

for file in /run/secrets/*_password; do
    name=souk_$(basename "$file" _password)
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=name="$name" --set=file="$file" <<'SQL'
\set password `cat :'file'`
SELECT format('CREATE ROLE %I', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" LOGIN PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;

\connect :name
SET client_min_messages = warning;
-- For the service's metrics. Each role sees its own statements, and needs no right for that.
CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public;
SQL
    echo "$name is there"
done
