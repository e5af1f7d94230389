//! Results in pages: a single page, or all items one after the other.

use std::future::Future;
use std::pin::Pin;
use std::{fmt, vec};

use crate::error::Error;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items; may be fewer than asked for, or none.
    pub items: Vec<T>,
    /// The token of the next page; `None` for the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Converts a page.
    pub(crate) fn read<M>(
        messages: Vec<M>,
        next_page_token: String,
        read: impl Fn(M) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            items: messages.into_iter().map(read).collect::<Result<_, _>>()?,
            next: Some(next_page_token).filter(|next| !next.is_empty()),
        })
    }
}

type PageFuture<T> = Pin<Box<dyn Future<Output = Result<Page<T>, Error>> + Send>>;

/// All items of a list, page by page. Asks for a page when the previous one is used up.
pub struct Pages<T> {
    fetch: Box<dyn FnMut(Option<String>) -> PageFuture<T> + Send>,
    page: vec::IntoIter<T>,
    next: Next,
}

/// What to ask for when a page is used up.
enum Next {
    First,
    After(String),
    Nothing,
}

impl<T> Pages<T> {
    pub(crate) fn new<F>(mut fetch: impl FnMut(Option<String>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Page<T>, Error>> + Send + 'static,
    {
        let fetch = Box::new(move |after| -> PageFuture<T> { Box::pin(fetch(after)) });
        Self { fetch, page: Vec::new().into_iter(), next: Next::First }
    }

    /// Returns the next item; `None` at the end.
    ///
    /// # Errors
    /// The page could not be read. The next call asks for it again.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(item) = self.page.next() {
                return Ok(Some(item));
            }
            let after = match &self.next {
                Next::First => None,
                Next::After(token) => Some(token.clone()),
                Next::Nothing => return Ok(None),
            };
            let page = (self.fetch)(after).await?;
            self.page = page.items.into_iter();
            self.next = page.next.map_or(Next::Nothing, Next::After);
        }
    }

    /// Returns all remaining items in memory; for a long list, use [`Self::next`].
    ///
    /// # Errors
    /// One of the pages could not be read.
    pub async fn collect(mut self) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        while let Some(item) = self.next().await? {
            items.push(item);
        }
        Ok(items)
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    /// Pages by page token: two items, none, one failure, and the last item.
    fn pages() -> Pages<u8> {
        let mut failed = false;
        Pages::new(move |after| {
            let page = |items: &[u8], next: Option<&str>| {
                Ok(Page { items: items.to_vec(), next: next.map(str::to_owned) })
            };
            std::future::ready(match after.as_deref() {
                None => page(&[1, 2], Some("empty")),
                Some("empty") => page(&[], Some("last")),
                Some("last") if !failed => {
                    failed = true;
                    Err(Error::lost())
                }
                Some("last") => page(&[3], None),
                other => panic!("{other:?}"),
            })
        })
    }

    #[tokio::test]
    async fn pages_follow_each_other_and_an_empty_page_is_not_the_last() {
        let mut pages = pages();
        assert_eq!(pages.next().await.unwrap(), Some(1));
        assert_eq!(pages.next().await.unwrap(), Some(2));
        assert_eq!(pages.next().await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(pages.next().await.unwrap(), Some(3), "asked for again");
        assert_eq!(pages.next().await.unwrap(), None);
        assert_eq!(pages.next().await.unwrap(), None);
    }
}
