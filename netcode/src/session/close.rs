//! Why a path is gone: a link says it, and the node passes it on to the game.

/// Why a path is gone. Its text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The other end closed it.
    #[error("the other end closed the connection")]
    Remote,
    /// It worked, then nothing came any more.
    #[error("the connection was lost: nothing came from the other end for too long")]
    TimedOut,
    /// It never came up.
    #[error("the host does not answer; check its address, its firewall and that it runs")]
    NoAnswer,
    /// The other end takes no more connections.
    #[error("the host is full")]
    Full,
    /// The other end speaks another protocol.
    #[error("the host runs another game or another version of it")]
    OtherGame,
    /// The token's time ran out while connecting.
    #[error("the join token has expired; ask the host for a new one")]
    TokenExpired,
    /// The other end has seen this token before.
    #[error("the join token was already used; ask the host for a new one")]
    TokenUsed,
    /// This machine's network failed.
    #[error("this machine's network socket failed")]
    Socket,
}
