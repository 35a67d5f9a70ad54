"""gRPC, and the frames of an attachment: requests in; outcomes, chunks and host calls out; shared memory."""
