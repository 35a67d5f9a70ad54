"""The two servers, gRPC and frames, and what an attachment is made of: requests, answers, host calls, shared
memory."""
