//! `GET /v1/models` and `GET /v1/models/{id}`.

use hyper::{Response, StatusCode};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::response::{Body, json_response};
use crate::api::wire::{Model, ModelList};

impl Api {
    pub(super) fn models(&self) -> Response<Body> {
        let list = ModelList { object: "list", data: [self.served_model()] };
        json_response(StatusCode::OK, &list)
    }

    pub(super) fn model(&self, id: &str) -> Result<Response<Body>, ApiError> {
        if *id != *self.model_name {
            return Err(ApiError::model_not_found(&self.model_name));
        }
        Ok(json_response(StatusCode::OK, &self.served_model()))
    }

    fn served_model(&self) -> Model<'_> {
        Model {
            id: &self.model_name,
            object: "model",
            created: self.created,
            owned_by: "minisgl",
            root: &self.model_name,
            max_model_len: self.text.max_seq_len,
        }
    }
}
