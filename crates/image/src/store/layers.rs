//! Layers that are in the store.

use std::{
    io::{self, PipeReader, Read},
    thread::JoinHandle,
};

use kiln_model::Digest;

use super::{
    Store,
    error::{Context as _, StoreError},
    objects::{self, Object, Tree},
};

impl Store {
    /// Whether this layer is there.
    pub(crate) fn has_layer(&self, layer: &Digest) -> Result<bool, StoreError> {
        let name = objects::layer_stream(layer);
        Ok(self.repo().has_stream(&name).doing(|| format!("look up {name}"))?.is_some())
    }

    /// The object that holds this layer's splitstream.
    pub(crate) fn layer_object(&self, layer: &Digest) -> Result<Object, StoreError> {
        let name = objects::layer_stream(layer);
        let found = self.repo().has_stream(&name).doing(|| format!("look up {name}"))?;
        found.ok_or_else(|| StoreError::damaged(&name, "it is missing"))
    }

    /// Puts a layer of the store over a tree.
    pub(crate) fn read_layer(&self, layer: &Digest, tree: &mut Tree) -> Result<(), StoreError> {
        let name = objects::layer_stream(layer);
        let damaged = |e: anyhow::Error| StoreError::damaged(&name, format!("{e:#}"));
        let mut stream = self.repo().open_stream(&name, None, Some(objects::LAYER_STREAM)).map_err(damaged)?;
        while let Some(entry) = composefs_oci::tar::get_entry(&mut stream).map_err(damaged)? {
            composefs_oci::image::process_entry(tree, entry).map_err(damaged)?;
        }
        tree.compact();
        Ok(())
    }

    /// Writes a layer's tar stream, byte for byte, as its digest says.
    pub fn copy_layer(&self, layer: &Digest, to: &mut impl std::io::Write) -> Result<(), StoreError> {
        let name = objects::layer_stream(layer);
        let damaged = |e: anyhow::Error| StoreError::damaged(&name, format!("{e:#}"));
        let mut stream = self.repo().open_stream(&name, None, Some(objects::LAYER_STREAM)).map_err(damaged)?;
        stream.cat(self.repo(), to).map_err(damaged)
    }
}

/// A layer's tar stream on its way out of the store.
struct Stream {
    pipe: PipeReader,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Store {
    /// Reads a layer's tar stream from a byte on.
    pub(crate) fn read_stream(&self, layer: &Digest, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let (pipe, mut to) = io::pipe()?;
        let (store, layer) = (self.clone(), *layer);
        let writer =
            std::thread::Builder::new().name("layer".into()).spawn(move || store.copy_layer(&layer, &mut to))?;
        let mut stream = Stream { pipe, writer: Some(writer) };
        io::copy(&mut stream.by_ref().take(from), &mut io::sink())?;
        Ok(Box::new(stream))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.pipe.read(buffer)? {
            0 if !buffer.is_empty() => match self.writer.take().map(JoinHandle::join) {
                Some(Ok(Err(error))) => Err(io::Error::other(error)),
                Some(Err(_)) => Err(io::Error::other("the layer's reader ended early")),
                _ => Ok(0),
            },
            count => Ok(count),
        }
    }
}
