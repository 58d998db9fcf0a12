"""The demo: nine jobs started on one of four nodes spread over all of them while they run, and nothing is lost on the way."""
