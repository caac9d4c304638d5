#!/bin/sh
# A database for each service whose passwords are there, and its two roles. Run at every deploy: it makes what is
# missing and sets what may have changed, so a service that is added later gets its own too.
set -eu

secrets=${SECRETS_DIR:-/run/secrets}
host=${PGHOST:-} # of all of them; else each is asked for by its own name
PGPASSWORD=$(cat "$secrets/password")
export PGPASSWORD PGUSER="${PGUSER:-postgres}" PGDATABASE=postgres PGCONNECT_TIMEOUT=10

for file in "$secrets"/*_owner_password; do
    service=$(basename "$file" _owner_password)
    export PGHOST="${host:-$service-database}"
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=app="souk_$service" --set=owner="souk_${service}_owner" \
        --set=app_file="$secrets/${service}_password" --set=owner_file="$file" <<'SQL'
\set app_password `cat :'app_file'`
\set owner_password `cat :'owner_file'`
SET client_min_messages = warning;
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY[:'app', :'owner']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
ALTER ROLE :"app" LOGIN PASSWORD :'app_password';
ALTER ROLE :"owner" LOGIN PASSWORD :'owner_password';
SELECT format('CREATE DATABASE %I OWNER %I', :'app', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'app') \gexec
REVOKE ALL ON DATABASE :"app" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"app" TO :"app";

\connect :app
SET client_min_messages = warning;
-- The schema `public` belongs to the database's owner, and since PostgreSQL 15 nobody else may create anything in it.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO :"app";
-- For the tables that the owner's migrations will make, and for those that they have made.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE ON SEQUENCES TO :"app";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"app";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"app";
-- For the service's metrics, where the server has it. Each role sees its own statements, and needs no right for that.
SELECT 'CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public'
WHERE EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements') \gexec
SQL
    echo "souk_$service is there"
done
