"""One child process per loaded model: its handle here, its entry there, and the messages between them."""
