package publisher

// Being written here: operations, disconnect.
