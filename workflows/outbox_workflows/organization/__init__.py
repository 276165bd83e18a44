"""Organisation bootstrap: a row of `app.event` becomes an organisation with a name in DNS and invited people."""
