"""What is seen of the platform: its dashboards, and their previews by the queries that Grafana would send."""
