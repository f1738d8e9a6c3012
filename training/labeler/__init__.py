"""The labeler: a program in which a model looks at pictures and says what it sees. Knows neither Django nor the queue."""
