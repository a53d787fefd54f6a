//! As much of the container runtime interface (`runtime.v1`) as a pull takes.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Request,
    codegen::http::uri::PathAndQuery,
    transport::{Endpoint, Uri},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AuthConfig {
    #[prost(string, tag = "1")]
    username: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    auth: Option<AuthConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PullImageResponse {
    #[prost(string, tag = "1")]
    image_ref: String,
}

/// Pulls an image as the kubelet does, with a name and a password where given, and gives what it
/// is called by locally.
///
/// # Errors
/// What the runtime says.
pub async fn pull_image(
    socket: &Path,
    image: &str,
    credentials: Option<(&str, &str)>,
) -> Result<String, String> {
    let socket = socket.to_owned();
    // The address is not used: the connector knows where to go.
    let channel = Endpoint::from_static("http://runtime.example")
        .connect_with_connector(service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| error.to_string())?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: image.to_owned(),
        }),
        auth: credentials.map(|(username, password)| AuthConfig {
            username: username.to_owned(),
            password: password.to_owned(),
        }),
    };
    let path = PathAndQuery::from_static("/runtime.v1.ImageService/PullImage");
    let codec: ProstCodec<PullImageRequest, PullImageResponse> = ProstCodec::default();
    let answer = client.unary(Request::new(request), path, codec).await;
    let answer = answer.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner().image_ref)
}
